/** The manifest for Kubernetes: judged by the published schema of a Job, and by what the statuses of this program mean. */
import { readFileSync } from "node:fs";
import { Ajv } from "ajv";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { dispatchK8s } from "../../src/api/tasks/dispatch-k8s.ts";
import { EXIT_STATUSES } from "../../src/cli/contract.ts";
import { run } from "../support/fake-library.ts";

const schema = JSON.parse(
  readFileSync(new URL("../../fixtures/kubernetes/job-1.30.schema.json", import.meta.url), "utf8"),
);
const validate = new Ajv({ allErrors: true, strictTypes: false }).compile(schema);

const LINE =
  "dispatch k8s /models/56b /models/56b-fp8 --to hf --dtype fp8-e4m3 --tasks 16 --image registry/isologit:1 --claim models=/models";

/** The Jobs as `kubectl apply` reads them. */
async function jobsOf(line: string) {
  const { status, stdout, stderr } = await run(line, { over: { dispatchK8s } });
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).not.toMatch(/[&*]a1\b/); // anchors are legal, and hard to edit
  // biome-ignore lint/suspicious/noExplicitAny: the schema says what a Job is
  return parseAllDocuments(stdout).map((document) => document.toJS() as any);
}

it("every Job follows the published schema, which refuses a field that Kubernetes does not know", async () => {
  const jobs = await jobsOf(
    `${LINE} --parallelism 4 --cpus 8 --pod-memory 12GiB --token-secret hub --retries 5`,
  );
  expect(jobs).toHaveLength(4);
  for (const job of jobs) expect(validate(job), JSON.stringify(validate.errors)).toBe(true);
  const [, tasks] = jobs;
  for (const spoil of [
    { ...tasks, spec: { ...tasks.spec, backofLimitPerIndex: 2 } },
    { ...tasks, spec: { ...tasks.spec, completions: "16" } },
    { ...tasks, spec: { ...tasks.spec, podFailurePolicy: { rules: [{ onExitCodes: {} }] } } },
  ]) {
    expect(validate(spoil)).toBe(false);
  }
});

it("Indexed Jobs of tasks, each with retries of its own", async () => {
  const [plan, tasks, compare, merge] = await jobsOf(`${LINE} --retries 5`);
  expect([plan, tasks, compare, merge].map(({ metadata }) => metadata.name)).toEqual([
    ...["isologit-56b-fp8-plan", "isologit-56b-fp8-tasks"],
    ...["isologit-56b-fp8-compare", "isologit-56b-fp8-merge"],
  ]);
  // a task that compares ends again and again until every task has written
  expect(compare.spec).toMatchObject({ completions: 16, backoffLimitPerIndex: 1000, maxFailedIndexes: 0 });
  expect(await jobsOf(`${LINE} --verify off`)).toHaveLength(3);
  expect(tasks.spec).toMatchObject({
    ...{ completionMode: "Indexed", completions: 16, parallelism: 16 },
    ...{ backoffLimitPerIndex: 5, maxFailedIndexes: 0 },
  });
  expect(tasks.spec.backoffLimit).toBeUndefined(); // Kubernetes counts the retries of each task, not of all
  for (const { spec } of [plan, tasks, compare, merge]) {
    expect(spec.template.spec.restartPolicy).toBe("Never"); // a policy of failures needs it
    expect(spec.template.spec.containers[0].volumeMounts).toEqual([{ name: "models", mountPath: "/models" }]);
  }
});

describe("what an exit status means to Kubernetes", () => {
  it("every status that another run would repeat fails the Job; all others are tried again", async () => {
    const jobs = await jobsOf(LINE);
    for (const { spec } of jobs) {
      const [drained, fatal, ...more] = spec.podFailurePolicy.rules;
      expect(drained).toEqual({
        action: "Ignore",
        onPodConditions: [{ type: "DisruptionTarget", status: "True" }],
      });
      expect(fatal.action).toBe("FailJob");
      expect(more).toEqual([]);
      const again = Object.keys(EXIT_STATUSES).filter(
        (status) => !fatal.onExitCodes.values.includes(Number(status)),
      );
      expect(again).toEqual(["0", "4", "5"]);
      expect(fatal.onExitCodes.containerName).toBe(spec.template.spec.containers[0].name);
    }
  });
});

it("the words of each process are commands that this program accepts", async () => {
  const jobs = await jobsOf(`${LINE} --memory 512MiB --verify bytes --keep-ends 1 --max-shard-size 1GB`);
  const words = jobs.map(({ spec }) => spec.template.spec.containers[0]);
  expect(words.map(({ command }) => command)).toEqual([
    ["isologit"],
    ["isologit"],
    ["isologit"],
    ["isologit"],
  ]);
  const env = { JOB_COMPLETION_INDEX: "7" };
  const calls = [];
  for (const { args } of words) {
    const { status, stderr, calls: made } = await run(args, { env });
    expect([status, stderr.includes("USAGE")]).toEqual([0, false]);
    calls.push(...made);
  }
  expect(calls.map(({ name, args }) => [name, ...args])).toEqual([
    ["plan", "/models/56b", "/models/56b-fp8"],
    ["convertTask", "/models/56b-fp8.plan.json"],
    ["mergeTask", "/models/56b-fp8.plan.json"],
    ["merge", "/models/56b-fp8.plan.json"],
  ]);
  expect(calls[0]!.options).toEqual({
    ...{ to: "hf", dtype: "fp8-e4m3", keepEnds: 1, maxShardBytes: 1e9 },
    ...{ memoryBytes: 2 ** 29, threads: 2, out: "/models/56b-fp8.plan.json" },
  });
  expect(calls[2]!.options).toEqual({ memoryBytes: 2 ** 29, threads: 2, verify: "bytes" });
  expect(calls[3]!.options).toEqual({ tasks: 16, verify: "bytes", memoryBytes: 2 ** 29, threads: 2 });
});

it.each([
  [LINE.replace("--image registry/isologit:1", ""), "--image is missing"],
  [`${LINE} --job-name Big_Model`, '--job-name is "Big_Model"'],
  [LINE.replace("models=/models", "models"), '--claim is "models", expected CLAIM=/PATH'],
  [`${LINE} --sbatch time=1`, "--sbatch is a flag of dispatch slurm"],
  [LINE.replace("k8s", "pbs"), 'ENGINE is "pbs", expected one of slurm, k8s'],
  [LINE.replace("--tasks 16", ""), "--tasks is missing"],
  ["dispatch slurm a b.isologit --tasks 2 --image x", "--image is a flag of dispatch k8s"],
])("refuses %s", async (line, saying) => {
  const { status, stderr } = await run(line, { over: { dispatchK8s } });
  expect([status, stderr]).toEqual([2, expect.stringContaining(saying)]);
});
