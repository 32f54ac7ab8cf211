/** The batch scripts of a conversion under Slurm: an array of tasks that write, an array of tasks that compare, and the merge. */
import { FAULT_STATUS, STOPPED_STATUS } from "./statuses.ts";

interface SlurmScripts {
  /** absolute path of the folder with the plan, the logs and the results */
  readonly folder: string;
  readonly name: string;
  readonly tasks: number;
  /** the words that start this program on a node */
  readonly program: readonly string[];
  /** tasks compare what was written, before the merge */
  readonly compares: boolean;
  /** further words for tasks that write, for tasks that compare and for `merge` */
  readonly taskWords: readonly string[];
  readonly compareWords: readonly string[];
  readonly mergeWords: readonly string[];
  /** options of sbatch without the leading `--`, for all jobs */
  readonly sbatch: readonly string[];
  /** how often Slurm starts a job again after a fault that may pass, or at its time limit */
  readonly retries: number;
}

/** Seconds before the time limit at which a process is asked to stop. */
const NOTICE_SECONDS = 60;

export const PLAN_NAME = "plan.json";

/** @returns the text of each script by its file name */
export function slurmScripts(job: SlurmScripts): ReadonlyMap<string, string> {
  const { tasks, compares, taskWords, compareWords, mergeWords } = job;
  const share = ["--task", `auto/${tasks}`];
  const array = (name: string, words: readonly string[]) =>
    scriptText(
      job,
      [`array=0-${tasks - 1}`, `output=${name}-%a.log`],
      `${name}-$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))`,
      words,
    );
  const merge = ["merge", PLAN_NAME, ...(compares ? ["--tasks", String(tasks)] : []), ...mergeWords];
  return new Map([
    ["tasks.sh", array("task", ["convert", "--plan", PLAN_NAME, ...share, ...taskWords])],
    ...(compares
      ? [["compare.sh", array("compare", ["merge", PLAN_NAME, ...share, ...compareWords])] as const]
      : []),
    ["merge.sh", scriptText(job, ["output=merge.log"], "merge", merge)],
  ]);
}

function scriptText(
  { folder, name, program, sbatch, retries }: SlurmScripts,
  options: readonly string[],
  result: string,
  words: readonly string[],
): string {
  const all = [
    `job-name=${name}`,
    `chdir=${quoteWord(folder)}`,
    ...options,
    "open-mode=append",
    "requeue",
    `signal=B:USR1@${NOTICE_SECONDS}`,
    ...sbatch, // the last one of an option counts
  ];
  const command = [...program, ...words].map(quoteWord).join(" ");
  return `#!/bin/bash
${all.map((option) => `#SBATCH --${option}`).join("\n")}

result=${result}
rm -f "$result.status"
threads=\${SLURM_CPUS_PER_TASK:-\${SLURM_CPUS_ON_NODE:-1}}
${command} --threads "$threads" --no-progress --json > "$result.json" &
child=$!
stopped= limit=
trap 'stopped=1 limit=1; kill -TERM $child' USR1 # the time limit is near: Slurm tells only this shell
trap 'stopped=1' TERM                            # Slurm tells the program too
wait $child
status=$?
while [ -n "$stopped" ]; do # a signal ended the wait, and not yet the program
  stopped=
  wait $child
  status=$?
done

again=
if [ $status -eq ${FAULT_STATUS} ] || [ $status -gt 128 ]; then again=1; fi # a fault that may pass, or it was killed
if [ $status -eq ${STOPPED_STATUS} ] && [ -n "$limit" ]; then again=1; fi # continues where it stopped
if [ -n "$again" ] && [ "\${SLURM_RESTART_COUNT:-0}" -lt ${retries} ]; then
  scontrol requeue "$SLURM_JOB_ID" && sleep ${NOTICE_SECONDS}
fi
echo $status > "$result.status"
exit $status
`;
}

/** A word as bash reads it. */
function quoteWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
