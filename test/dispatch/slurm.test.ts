/** What Slurm is asked, and what becomes of its answers, with doubles of its programs that run the real scripts. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeEach, expect, it } from "vitest";
import { dispatchSlurm, type SlurmOptions } from "../../src/api/tasks/dispatch.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { CONVERTED } from "../support/fake-library.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");
const bin = join(work, "bin");
const PATH = process.env.PATH;
afterAll(() => {
  process.env.PATH = PATH;
});

/**
 * Doubles of Slurm: `sbatch` runs a script at once, each element of an array after the other, with the variables that Slurm
 * sets; what they are asked stands in `asked`. The environment of a test changes how they answer.
 */
const SLURM = {
  sbatch: `
echo "sbatch $*" >> asked
script="\${!#}"
[ -n "$REFUSE" ] && [[ $script == $REFUSE ]] && { echo "sbatch: error: no such partition" >&2; exit 1; }
id=41; [ $script = merge.sh ] && id=42; [ $script = compare.sh ] && id=43
export SLURM_CPUS_PER_TASK=3 SLURM_RESTART_COUNT=\${RESTARTS:-0}
count=$(sed -n 's/^#SBATCH --array=0-//p' $script)
for i in $(seq 0 \${count:-0}); do
  name=$id; [ -n "$count" ] && name=$id\\_$i
  SLURM_JOB_ID=$name SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_COUNT=$((count + 1)) bash ./$script 2>> log
  status=$?
  state=COMPLETED; [ $status = 0 ] || state=FAILED
  echo "$name $state" >> states
done
[ $script = merge.sh ] && [ -n "$MERGE_STATE" ] && { sed -i '/^42 /d' states; echo "42 $MERGE_STATE" >> states; }
echo "$id;cluster"`,
  squeue: `
[ -n "$FORGETS" ] && { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
grep -E "^\${!#}(_| )" <(sed "s/^/--jobs=/" states) | sed "s/^--jobs=//"`,
  scancel: `echo "scancel $*" >> asked`,
  scontrol: `echo "scontrol $*" >> asked; exit 1`,
};

/** In the place of isologit: writes what it was asked, prints REPORT or, for the word in FAILS, an error. */
const PROGRAM = `
echo "isologit $*" >> asked
if [ -n "$FAILS" ] && [[ "$* $SLURM_ARRAY_TASK_ID" == $FAILS ]]; then
  echo '{"error":{"code":"DIGEST_MISMATCH","message":"other bytes","at":{"tensor":"w"},"next":"fetch it"}}'
  exit \${FAILS_WITH:-3}
fi
[ -n "$SLEEPS" ] && { trap 'exit 5' TERM; kill -USR1 $PPID; sleep 5 & wait; exit 9; }
cat "$REPORT"`;

mkdirSync(bin);
for (const [name, text] of Object.entries(SLURM)) {
  writeFileSync(join(bin, name), `#!/bin/bash\n${text}\n`);
  chmodSync(join(bin, name), 0o755);
}
writeFileSync(join(bin, "program"), PROGRAM);
writeFileSync(join(bin, "report"), JSON.stringify(CONVERTED));

const VARIABLES = ["REFUSE", "RESTARTS", "MERGE_STATE", "FORGETS", "FAILS", "FAILS_WITH", "SLEEPS"];
let counter = 0;
beforeEach(() => {
  for (const name of VARIABLES) delete process.env[name];
  process.env.PATH = `${bin}:${PATH}`;
  process.env.REPORT = join(bin, "report");
});

async function dispatched(more: Partial<SlurmOptions> = {}) {
  const folder = join(work, `${counter++} of a test`);
  const states: unknown[] = [];
  const ended = await dispatchSlurm(model, join(folder, "out.isologit"), {
    ...{ to: "packed", tasks: 3, program: ["bash", join(bin, "program")], workFolder: folder, pollMs: 1 },
    watch: (event) => event.type === "tasks" && states.push(event),
    ...more,
  }).then(
    (report) => ({ report, error: null }),
    (error: IsologitError) => ({ report: null, error }),
  );
  const linesOf = (name: string) =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8").trimEnd().split("\n") : [];
  const asked = linesOf("asked");
  return {
    ...{ ...ended, folder, states, asked, linesOf },
    of: (program: string) => asked.filter((line) => line.startsWith(program)),
  };
}

it("submits an array that writes, one that compares, and a merge, and returns the report of the merge", async () => {
  const { report, folder, states, asked, linesOf } = await dispatched({
    ...{ taskWords: ["--memory", "64MiB"], compareWords: ["--backend", "wasm"] },
    ...{ mergeWords: ["--verify", "bytes"], sbatch: ["partition=long"] },
  });
  expect(asked).toEqual([
    "sbatch --parsable tasks.sh",
    ...[0, 1, 2].map(
      () => "isologit convert --plan plan.json --task auto/3 --memory 64MiB --threads 3 --no-progress --json",
    ),
    "sbatch --parsable --dependency=afterok:41 --kill-on-invalid-dep=yes compare.sh",
    ...[0, 1, 2].map(
      () => "isologit merge plan.json --task auto/3 --backend wasm --threads 3 --no-progress --json",
    ),
    "sbatch --parsable --dependency=afterok:43 --kill-on-invalid-dep=yes merge.sh",
    "isologit merge plan.json --tasks 3 --verify bytes --threads 3 --no-progress --json",
  ]);
  expect(report).toMatchObject({
    engine: "slurm",
    folder,
    jobs: { tasks: "41", compare: "43", merge: "42" },
    result: CONVERTED,
  });
  expect(JSON.parse(readFileSync(join(folder, "plan.json"), "utf8")).id).toBe(report!.plan);
  expect(states).toEqual([{ type: "tasks", done: 6, running: 0, waiting: 0, failed: 0 }]);
  const options = linesOf("tasks.sh").filter((line) => line.startsWith("#SBATCH"));
  for (const option of ["array=0-2", "requeue", "partition=long", `chdir='${folder}'`, "output=task-%a.log"])
    expect(options).toContain(`#SBATCH --${option}`);
});

it("believes the status files where Slurm has forgotten the jobs", async () => {
  process.env.FORGETS = "1";
  expect((await dispatched()).report?.result).toEqual(CONVERTED);
  process.env.FAILS = "merge * --tasks *";
  expect((await dispatched()).error).toMatchObject({
    code: "DIGEST_MISMATCH",
    message: "merge: other bytes",
  });
});

it("ends with the error of a task that fails for good, and cancels the rest", async () => {
  process.env.FAILS = "convert * 1";
  const { error, of } = await dispatched();
  expect(error).toMatchObject({
    ...{ code: "DIGEST_MISMATCH", exit: 3, message: "task 1: other bytes" },
    ...{ at: { tensor: "w" }, next: "fetch it" },
  });
  expect(of("scancel")).toEqual(["scancel 41 43 42"]);
  expect(of("scontrol")).toEqual([]); // a damaged file stays damaged
});

it.each([
  ["4", "0", ["scontrol requeue 41_1"]],
  ["137", "1", ["scontrol requeue 41_1"]], // the process was killed
  ["4", "2", []],
])(
  "has status %s after %s restarts tried again by Slurm, up to the limit",
  async (status, restarts, asked) => {
    process.env.FAILS = "convert * 1";
    process.env.FAILS_WITH = status;
    process.env.RESTARTS = restarts;
    expect((await dispatched({ retries: 2, tasks: 2 })).of("scontrol")).toEqual(asked);
  },
);

it("stops a task before its time limit, and has it continued", async () => {
  process.env.SLEEPS = "1";
  const { of, linesOf } = await dispatched({ tasks: 1 });
  expect(of("scontrol")[0]).toBe("scontrol requeue 41_0");
  expect(linesOf("task-0.status")).toEqual(["5"]); // it did not sleep to its end, which would be 9
});

it("returns the report of a merge that proved nothing", async () => {
  process.env.MERGE_STATE = "FAILED";
  expect((await dispatched()).report?.result).toEqual(CONVERTED);
});

it("says where the log is if a job ends without a report", async () => {
  process.env.REPORT = "/dev/null";
  process.env.MERGE_STATE = "OUT_OF_MEMORY";
  const { error, folder } = await dispatched();
  expect(error).toMatchObject({
    ...{ code: "IO_FAILED", message: "merge ended as OUT_OF_MEMORY, without a report" },
    at: { file: join(folder, "merge.log") },
  });
});

it("cancels the jobs when it is stopped", async () => {
  process.env.MERGE_STATE = "PENDING";
  const stop = new AbortController();
  setTimeout(() => stop.abort(new IsologitError("INTERRUPTED", "stopped by SIGINT")), 1500);
  const { error, of } = await dispatched({ signal: stop.signal });
  expect(error).toMatchObject({ code: "INTERRUPTED", exit: 5 });
  expect(of("scancel")).toEqual(["scancel 41 43 42"]);
});

it.each([
  ["compare.sh", "scancel 41"],
  ["merge.sh", "scancel 41 43"],
])("takes back the arrays if Slurm refuses %s, and reports a refusal", async (script, asked) => {
  process.env.REFUSE = script;
  const { error, of } = await dispatched();
  expect(error).toMatchObject({ code: "IO_FAILED", message: "sbatch: sbatch: error: no such partition" });
  expect(of("scancel")).toEqual([asked]);
});

it("has no array that compares where nothing is verified", async () => {
  const { report, of } = await dispatched({ compare: false, mergeWords: ["--verify", "off"] });
  expect(of("sbatch")).toEqual([
    "sbatch --parsable tasks.sh",
    "sbatch --parsable --dependency=afterok:41 --kill-on-invalid-dep=yes merge.sh",
  ]);
  expect(of("isologit merge")).toEqual([
    "isologit merge plan.json --verify off --threads 3 --no-progress --json",
  ]);
  expect(report?.jobs).toEqual({ tasks: "41", compare: null, merge: "42" });
});

it("ends with the error of a task that compares", async () => {
  process.env.FAILS = "merge * --task * 2";
  const { error, of } = await dispatched();
  expect(error).toMatchObject({ code: "DIGEST_MISMATCH", message: "compare 2: other bytes" });
  expect(of("scancel")).toEqual(["scancel 41 43 42"]);
});

it("submits nothing in a dry run, and names what is missing without Slurm", async () => {
  const { report, asked, linesOf } = await dispatched({ dryRun: true });
  expect([report?.jobs, report?.result, asked]).toEqual([null, null, []]);
  expect(linesOf("merge.sh")[0]).toBe("#!/bin/bash");
  process.env.PATH = "/nowhere";
  expect((await dispatched()).error).toMatchObject({
    code: "NOT_FOUND",
    message: "there is no sbatch on PATH",
  });
});
