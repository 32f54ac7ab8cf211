/** Which task a process is, and what the commands of tasks accept. */
import { describe, expect, it } from "vitest";
import { IsologitError } from "../../src/core/errors.ts";
import { mdText } from "../../src/report/md.ts";
import { CONVERTED, DIFFERENT, fakeLibrary, run } from "../support/fake-library.ts";

const TASK = "convert --plan p.json --task";

/** The task that the library is asked for. */
async function taskOf(line: string, env: Readonly<Record<string, string>> = {}) {
  let asked: unknown;
  const over = {
    convertTask: async (_: string, task: { index: number; count: number }) => {
      asked = task;
      throw new IsologitError("TASKS_UNFINISHED", "seen");
    },
  };
  const { status, stderr } = await run(line, { env, over });
  return { status, asked, stderr };
}

const slurm = (id: number, min: number, count: number) => ({
  SLURM_ARRAY_TASK_ID: String(id),
  SLURM_ARRAY_TASK_MIN: String(min),
  SLURM_ARRAY_TASK_COUNT: String(count),
});

describe("the number of a task", () => {
  it.each<[string, Record<string, string>, number, number]>([
    ["3/8", {}, 3, 8],
    ["0/1", slurm(5, 1, 9), 0, 1],
    ["auto", slurm(1, 1, 8), 0, 8],
    ["auto", slurm(8, 1, 8), 7, 8],
    ["auto/8", slurm(7, 0, 8), 7, 8],
    ["auto/8", { JOB_COMPLETION_INDEX: "2" }, 2, 8],
  ])("%s with %j", async (given, env, index, count) => {
    expect((await taskOf(`${TASK} ${given}`, env)).asked).toEqual({ index, count });
  });

  it.each<[string, Record<string, string>, string]>([
    ["3", {}, '--task is "3", expected I/N, such as 0/8, or auto'],
    ["1/x", {}, '--task is "1/x"'],
    ["auto", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"],
    [
      "auto",
      { JOB_COMPLETION_INDEX: "2" },
      "Kubernetes does not say the number of tasks: give --task auto/N",
    ],
    ["auto/8", slurm(5, 3, 2), "the array of Slurm has 2 tasks, and --task says 8"],
  ])("refuses %s with %j", async (given, env, saying) => {
    const { status, asked, stderr } = await taskOf(`${TASK} ${given}`, env);
    expect([status, asked]).toEqual([2, undefined]);
    expect(stderr).toContain(saying);
  });
});

describe("a task", () => {
  it.each([
    ["convert a b.isologit --task 0/2", "--task needs --plan"],
    [`${TASK} 0/2 --verify off`, "--verify has no meaning with --task"],
    [`${TASK} 0/2 --dtype f32`, "--dtype has no meaning with --task"],
    [`${TASK} 0/2 --tokens 16`, "--tokens has no meaning with --task"],
    ["convert a b --plan p.json --task 0/2", "SRC has no meaning with --task"],
    ["convert", "missing required argument 'SRC'"],
  ])("refuses %s", async (line, saying) => {
    const { status, stderr, calls } = await run(line);
    expect([status, calls]).toEqual([2, []]);
    expect(stderr).toContain(saying);
  });

  it("prints what it wrote and what was there", async () => {
    const { stdout, calls } = await run(`${TASK} 1/4 --memory 64MiB --overwrite --direct-io off`);
    expect(stdout).toMatch(/^task 1\/4: 46 tensors in \/models\/out.isologit.partial\n/);
    expect(stdout).toContain("40 tensors, 768.0 KiB");
    expect(stdout).toContain("6 tensors were there already");
    const options = { memoryBytes: 2 ** 26, overwrite: true, directIo: "off" };
    expect(calls).toEqual([{ name: "convertTask", args: ["p.json"], options }]);
    const { json } = await run(`${TASK} 1/4 --json`);
    expect(json()).toMatchObject({ task: { index: 1, count: 4 }, kept: 6 });
  });
});

it("a plan without tasks runs in one process", async () => {
  const { calls } = await run("convert --plan p.json --verify bytes");
  expect(calls).toEqual([{ name: "convertPlan", args: ["p.json"], options: { verify: "bytes" } }]);
});

it("merge prints and ends as convert does", async () => {
  const good = await run("merge p.json --tokens 16 --json");
  expect([good.status, good.json().plan]).toEqual([0, "plan-1"]);
  expect(good.calls).toEqual([{ name: "merge", args: ["p.json"], options: { tokens: 16 } }]);
  const over = { merge: async () => ({ ...CONVERTED, verification: DIFFERENT, staged: "x.partial" }) };
  const bad = await run("merge p.json", { over });
  expect([bad.status, bad.stderr]).toEqual([1, expect.stringContaining("the verdict is different")]);
});

describe("a task that compares", () => {
  it("prints what it compared", async () => {
    const { stdout, calls } = await run("merge p.json --task auto/4 --memory 64MiB", {
      env: { JOB_COMPLETION_INDEX: "1" },
    });
    expect(stdout).toMatch(/^task 1\/4: compared 12 tensors in \/models\/out.isologit.partial\n/);
    expect(stdout).toMatch(
      /different +none\nlayers +0 to 2 of the forward passes\nrun on +wasm, 2 threads\n/,
    );
    const options = { memoryBytes: 2 ** 26, verify: "logits" };
    expect(calls).toEqual([{ name: "mergeTask", args: ["p.json"], options }]);
  });

  it("says that there is a difference, which the merge judges", async () => {
    const { mergeTask } = fakeLibrary().library;
    const over = {
      mergeTask: async () => ({ ...(await mergeTask("", { index: 0, count: 1 })), different: 2 }),
    };
    const { status, stdout } = await run("merge p.json --task 0/4", { over });
    expect([status, stdout]).toEqual([0, expect.stringMatching(/different +2 tensors: `merge` names them/)]);
  });

  it("runs no layer for --verify bytes", async () => {
    const { calls } = await run("merge p.json --task 0/4 --verify bytes");
    expect(calls[0]?.options).toEqual({ verify: "bytes" });
  });

  it.each([
    ["--verify off", "--verify off", "leave the tasks out that compare"],
    ["--tokens 16", "--tokens", "give it to the merge that follows"],
    ["--tasks 4", "--tasks", "give it to the merge that follows"],
    ["--sign key.pem", "--sign", "give it to the merge that follows"],
  ])("refuses %s", async (flag, named, next) => {
    const { status, stderr, calls } = await run(`merge p.json --task 0/4 ${flag}`);
    expect([status, calls]).toEqual([2, []]);
    expect(stderr).toContain(`${named} has no meaning with --task`);
    expect(stderr).toContain(next);
  });

  it("is awaited by the merge that is told of it", async () => {
    const { calls } = await run("merge p.json --tasks 4");
    expect(calls).toEqual([{ name: "merge", args: ["p.json"], options: { tasks: 4 } }]);
  });
});

it("a merge shows what tasks have done, in the terminal and in reports", async () => {
  const verification = { ...DIFFERENT, comparedByTasks: 37, layersByTasks: 8 };
  const over = { merge: async () => ({ ...CONVERTED, verification }) };
  const { stdout } = await run("merge p.json --tasks 4 --verbose", { over });
  expect(stdout).toMatch(/^by tasks +37 tensors compared, 8 layers run$/m);
  const report = { ...CONVERTED, verification };
  expect(mdText({ command: "convert", report })).toContain("37 tensors compared, 8 layers run");
  expect((await run("merge p.json")).stdout).not.toContain("by tasks");
});

it("dispatch slurm gives the nodes what they need, and ends as the merge ended", async () => {
  const line =
    "dispatch slurm a b --to hf --dtype fp8-e4m3 --tasks 4 --memory 2GiB --verify bytes --kl 0.1 --ids 1,2 --sbatch time=1 --sbatch mem=4G";
  const { status, calls, stdout } = await run(line);
  expect([status, stdout.includes("tasks 7, compare 9, merge 8")]).toEqual([0, true]);
  expect(calls[0]!.options).toMatchObject({
    ...{ to: "hf", dtype: "fp8-e4m3", tasks: 4, kl: 0.1, ids: [1, 2], sbatch: ["time=1", "mem=4G"] },
    taskWords: ["--memory", "2147483648B"],
    compareWords: ["--memory", "2147483648B", "--verify", "bytes"],
    mergeWords: ["--memory", "2147483648B", "--verify", "bytes"],
  });
  const over = {
    dispatchSlurm: async () => ({
      ...({ engine: "slurm", plan: "plan-1", tasks: 4, folder: "/f", scripts: [] } as const),
      ...{
        jobs: { tasks: "7", compare: "9", merge: "8" },
        result: { ...CONVERTED, verification: DIFFERENT, staged: "x" },
      },
    }),
  };
  const bad = await run(`${line} --json`, { over });
  expect([bad.status, bad.json().result.verification.verdict]).toEqual([1, "different"]);
});
