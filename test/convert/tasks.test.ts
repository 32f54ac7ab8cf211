/** Tasks in any number and order, stopped and run again: after `merge`, the bytes that one process writes. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { convertPlan } from "../../src/api/tasks/merge.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { findLeftovers } from "../../src/io/leftovers.ts";
import { lockDestination } from "../../src/io/lock.ts";
import { lockTask } from "../../src/io/tasks/task-files.ts";
import { counted, withFault, withoutCalls } from "../support/faulty-io.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";
import { contentAt, type Divided, divide } from "../support/tasks.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-*");
let counter = 0;

async function divided(name: string, options: ConvertOptions, from = model): Promise<Divided> {
  const folder = join(work, String(counter++));
  mkdirSync(folder);
  return await divide(folder, from, name, options);
}

async function expectMerged(run: Divided): Promise<void> {
  const report = await run.merged();
  if (report.verification !== null) expect(["same", "within"]).toContain(report.verification.verdict);
  expect(contentAt(run.destination)).toEqual(await run.alone());
  expect(existsSync(run.staging)).toBe(false);
}

const refusal = (work: Promise<unknown>): Promise<IsologitError> =>
  work.then(
    () => expect.unreachable("nothing was refused"),
    (error) => {
      expect(error).toBeInstanceOf(IsologitError);
      return error;
    },
  );

const indices = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("a plan file that cannot be written", () => {
  const folder = join(work, "unplanned");
  mkdirSync(folder);
  const file = join(folder, "plan.json");
  const run = () => plan(model, join(work, "x"), { to: "packed", out: file });

  it("since the source cannot be looked at, is an error that names the source", async () => {
    const counts = await counted(run);
    for (let n = 1; n <= counts.get("stat")!; n++) {
      const { reason } = (await withFault("stat", n, "EIO", run)) as PromiseRejectedResult;
      if (reason === undefined) continue; // a look for a file that need not be there
      expect(reason, String(n)).toMatchObject({ code: "IO_FAILED", at: { file: expect.any(String) } });
    }
    rmSync(file);
  });

  it("and not removed either, is the first error, and is named by `doctor`", async () => {
    const outcome = await withoutCalls(["rename", "rm"], "EROFS", run);
    expect(outcome).toMatchObject({ reason: { code: "IO_FAILED", at: { file } } });
    expect(await findLeftovers(folder)).toMatchObject([{ kind: "file", state: "abandoned" }]);
    expect(readdirSync(folder).length).toBe(1);
  });
});

describe("the bytes of one process", () => {
  const PACKED = { to: "packed" } as const;
  const FP8 = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", maxShardBytes: 60_000 } as const;

  it("one task", async () => {
    const run = await divided("out.isologit", PACKED);
    await run.task(0, 1);
    await expectMerged(run);
  });

  it("two tasks, the first of which `doctor` names until the other has run", async () => {
    const run = await divided("named.isologit", PACKED);
    const { tensors } = await run.task(0, 2);
    const found = { kind: "staged", state: "abandoned", tensors, tasks: 2 };
    expect(await findLeftovers(run.destination)).toMatchObject([found]);
    await run.task(1, 2);
    await expectMerged(run);
  });

  it("three tasks at the same time", async () => {
    const run = await divided("out.isologit", PACKED);
    const reports = await Promise.all(indices(3).map((i) => run.task(i, 3)));
    expect(reports.every(({ tensors, kept }) => tensors > 0 && kept === 0)).toBe(true);
    await expectMerged(run);
  });

  it("two tasks, the last first, of FP8 in several files", async () => {
    const run = await divided("out", FP8);
    await run.task(1, 2);
    await run.task(0, 2);
    await expectMerged(run);
  });

  it("tasks that were stopped, and write only what is missing", async () => {
    const run = await divided("out", FP8);
    const stop = new AbortController();
    let seen = 0;
    const stopped = await refusal(
      run.task(0, 2, {
        checkpointBytes: 1,
        signal: stop.signal,
        watch: ({ type }) => {
          if (type === "tensor" && ++seen === 10) stop.abort();
        },
      }),
    );
    expect(stopped.code).toBe("INTERRUPTED");
    await run.task(1, 2);
    const again = await run.task(0, 2);
    expect(again.kept).toBeGreaterThan(0);
    expect(again.kept).toBeLessThan(again.tensors);
    const idle = await run.task(0, 2);
    expect([idle.kept, idle.bytesRead, idle.bytesWritten]).toEqual([idle.tensors, 0, 0]);
    await expectMerged(run);
  });

  it("bytes beside another task's that a file system lost are written again", async () => {
    const run = await divided("out.isologit", { ...PACKED, verify: "bytes" });
    for (const i of indices(2)) await run.task(i, 2);
    const file = join(run.staging, "data/out.isologit");
    const { size } = statSync(file);
    const bytes = readFileSync(file);
    bytes.fill(7, size / 2, size / 2 + 4096); // the shares meet in the middle
    writeFileSync(file, bytes);
    const warnings: string[] = [];
    const report = await run.merged({
      watch: (event) => event.type === "warning" && warnings.push(event.message),
    });
    expect(report.verification?.verdict).toBe("same");
    expect(warnings.join()).toContain("staged tensors are not what the earlier run wrote");
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });

  it("an interrupted merge continues, and a finished one verifies again", async () => {
    const run = await divided("out.isologit", PACKED);
    for (const i of indices(2)) await run.task(i, 2);
    const stop = new AbortController();
    const stopped = await refusal(
      run.merged({
        signal: stop.signal,
        watch: (event) => event.type === "phase" && event.phase === "verify" && stop.abort(),
      }),
    );
    expect(stopped.code).toBe("INTERRUPTED");
    await expectMerged(run);
    const after = await run.merged();
    expect([after.bytesWritten, after.verification?.verdict]).toEqual([0, "same"]);
  });
});

describe("what forward passes found when the conversion was planned", () => {
  const TINY = golden("tiny");
  const FP8 = { to: "hf", dtype: "fp8-e4m3", backend: "wasm" } as const;
  const passes = ["sensitivity", "calibrate", "logits"];
  it.each<[string, ConvertOptions]>([
    ["the automatic recipe", { ...FP8, recipe: "auto", tokens: 24 }],
    ["the automatic recipe of types", { to: "gguf", recipe: "auto", tokens: 8, bits: 6 }],
    ["calibrated scales", { ...FP8, keepEnds: 0, calibrate: true, kvCache: "fp8", quantDialect: "modelopt" }],
  ])("%s: no task runs the model again", async (_, options) => {
    const run = await divided("out", options, TINY);
    const phases: string[] = [];
    const watch: ConvertOptions["watch"] = (event) => event.type === "phase" && phases.push(event.phase);
    for (const i of indices(2)) await run.task(i, 2, { watch });
    await run.compared(0, 1, { watch });
    expect((await run.merged({ watch })).verification).toMatchObject({ verdict: "within" });
    expect(phases.filter((phase) => passes.includes(phase))).toEqual([]);
    expect(contentAt(run.destination)).toEqual(await run.alone());
    await convertPlan(run.planFile, { verify: "bytes", threads: 1, overwrite: true, watch });
    expect(phases.filter((phase) => passes.includes(phase))).toEqual([]);
  });

  it.each<[string, (chosen: Chosen) => void]>([
    [
      "scales",
      ({ calibration: { inputs } }) => {
        for (const key of Object.keys(inputs)) inputs[key]! *= 2;
      },
    ],
    ["a recipe", ({ recipe }) => Object.assign(recipe, { keepLayers: [0, 1, 2] })],
  ])("%s of another plan are not accepted", async (_, edit) => {
    const options = { ...FP8, recipe: "auto", tokens: 24, calibrate: true } as const;
    const run = await divided("out", options, TINY);
    const edited = JSON.parse(readFileSync(run.planFile, "utf8"));
    edit(edited.run.chosen);
    writeFileSync(run.planFile, JSON.stringify(edited));
    expect((await refusal(run.task(0, 2))).code).toBe("PLAN_CHANGED");
  });
});

/** As the plan file has it. */
interface Chosen {
  readonly recipe: object;
  readonly calibration: { readonly inputs: Record<string, number> };
}

describe("merge refuses", () => {
  const started = async () => {
    const run = await divided("out.isologit", { to: "packed" });
    await run.task(1, 3);
    return run;
  };

  it("tasks that have not run, and names them", async () => {
    const run = await started();
    const error = await refusal(run.merged());
    expect([error.code, error.exit, error.at.file]).toEqual(["TASKS_UNFINISHED", 4, run.staging]);
    expect(error.message).toMatch(/ended: 0\/3 \((\d+) of \1 tensors are missing\), 2\/3 \((\d+) of \2 /);
    await run.task(0, 3);
    await run.task(2, 3);
    await expectMerged(run);
  });

  it("a journal that lost its end", async () => {
    const run = await started();
    await run.task(0, 3);
    await run.task(2, 3);
    const journal = join(run.staging, "journal.2-of-3.ndjson");
    truncateSync(journal, statSync(journal).size - 10);
    expect((await refusal(run.merged())).message).toContain("2/3 (1 of ");
    expect((await run.task(2, 3)).kept).toBeGreaterThan(0);
    await expectMerged(run);
  });

  it("a plan of which no task has begun", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    const error = await refusal(run.merged());
    expect([error.code, error.message]).toEqual(["TASKS_UNFINISHED", "no task has begun"]);
    expect(readdirSync(dirname(run.destination))).toEqual(["plan.json"]);
  });

  it("while a task runs", async () => {
    const run = await started();
    await using _ = await lockTask(run.destination, { index: 2, count: 3 });
    expect((await refusal(run.merged())).code).toBe("DESTINATION_BUSY");
  });

  it("files that are not what the tasks wrote, without a verification", async () => {
    const run = await divided("out.isologit", { to: "packed", verify: "off" });
    await run.task(0, 1);
    const file = join(run.staging, "data/out.isologit");
    const bytes = readFileSync(file);
    bytes.fill(7, bytes.byteLength - 6000, bytes.byteLength - 3000);
    writeFileSync(file, bytes);
    await expectMerged(run); // read, compared with the journals, and written again
  });
});

describe("a task refuses", () => {
  const copied = async () => {
    const source = join(work, `source-${counter}`);
    cpSync(model, source, { recursive: true });
    return { source, run: await divided("out.isologit", { to: "packed" }, source) };
  };

  it("a source that was changed since it was planned, and keeps what is staged", async () => {
    const { source, run } = await copied();
    await run.task(0, 2);
    const weights = join(source, "model.safetensors");
    utimesSync(weights, new Date(), new Date(1e12));
    const error = await refusal(run.task(1, 2));
    expect([error.code, error.at.file]).toEqual(["PLAN_CHANGED", weights]);
    expect(error.message).toBe("the file was changed since the conversion was planned");
    expect((await refusal(run.merged())).at.file).toBe(weights);
    expect(existsSync(join(run.staging, "journal.0-of-2.ndjson"))).toBe(true);
    // a new plan has the same id, because names and shapes are the same, but not the same source
    await plan(source, run.destination, { to: "packed", out: run.planFile });
    expect((await refusal(run.task(1, 2))).message).toBe("the staged files belong to another plan");
    expect((await refusal(run.merged())).message).toBe("the staged files belong to another plan");
  });

  it("another number of tasks", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    await run.task(0, 2);
    const error = await refusal(run.task(1, 4));
    expect([error.code, error.message]).toEqual([
      "STAGING_EXISTS",
      "the plan was divided into 2 tasks here, and now into 4",
    ]);
  });

  it("a plan that was edited", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    const edited = JSON.parse(readFileSync(run.planFile, "utf8"));
    edited.run.options.dtype = "f32";
    writeFileSync(run.planFile, JSON.stringify(edited));
    expect((await refusal(run.task(0, 2))).code).toBe("PLAN_CHANGED");
    edited.run.options.dtype = "int3";
    writeFileSync(run.planFile, JSON.stringify(edited));
    expect((await refusal(run.task(0, 2))).message).toContain(
      "not a plan that can be run: run.options.dtype",
    );
  });

  it.each([
    [2, 2, "expected 0 to 1"],
    [-1, 2, "expected 0 to 1"],
    [0, 0, "expected 1 to 10000 tasks"],
  ])("task %d of %d", async (index, count, message) => {
    const run = await divided("out.isologit", { to: "packed" });
    expect((await refusal(run.task(index, count))).message).toContain(message);
  });

  it("to run twice at the same time, and beside a run of the whole", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    {
      await using _ = await lockTask(run.destination, { index: 0, count: 2 });
      expect((await refusal(run.task(0, 2))).code).toBe("DESTINATION_BUSY");
      await run.task(1, 2);
    }
    expect(readdirSync(run.staging).sort()).toEqual(["data", "journal.1-of-2.ndjson"]);
  });

  it("an existing destination", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    writeFileSync(run.destination, "something");
    expect((await refusal(run.task(0, 2))).code).toBe("DESTINATION_EXISTS");
    await run.task(0, 1, { overwrite: true });
    expect(readFileSync(run.destination, "utf8")).toBe("something");
    expect((await refusal(run.merged())).code).toBe("DESTINATION_EXISTS");
    await run.merged({ overwrite: true });
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });
});

describe("a run in one process", () => {
  it("runs a plan file without tasks", async () => {
    const run = await divided("out", { to: "hf", dtype: "f32" });
    await convertPlan(run.planFile, { verify: "bytes", threads: 1 });
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });

  it("does not continue or remove what tasks write", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    await run.task(0, 2);
    const again = (more: ConvertOptions) => convert(model, run.destination, { verify: "off", ...more });
    expect((await refusal(again({ resume: true }))).code).toBe("STAGING_EXISTS");
    {
      await using _ = await lockTask(run.destination, { index: 1, count: 2 });
      expect((await refusal(again({ overwrite: true }))).code).toBe("DESTINATION_BUSY");
    }
    await run.task(1, 2);
    await again({ overwrite: true });
    expect(existsSync(run.staging)).toBe(false);
  });

  it("holds the lock against tasks, and its staged files are not theirs", async () => {
    const run = await divided("out.isologit", { to: "packed" });
    mkdirSync(join(run.staging, "data"), { recursive: true });
    writeFileSync(join(run.staging, "journal.ndjson"), "");
    expect((await refusal(run.task(0, 2))).message).toContain("a run in one process left its staged files");
    rmSync(run.staging, { recursive: true });
    await using _ = await lockDestination(run.destination);
    const before = performance.now();
    const late = lockTask(run.destination, { index: 0, count: 2 });
    await new Promise((wake) => setTimeout(wake, 300));
    await _[Symbol.asyncDispose]();
    await (await late)[Symbol.asyncDispose]();
    expect(performance.now() - before).toBeGreaterThan(250);
  });
});
