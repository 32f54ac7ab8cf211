/** `convert --plan FILE --task I/N` writes one share of a plan, and `merge PLAN --task I/N` verifies one. */

import { IsologitError } from "../../core/errors.ts";
import { escapeControls, formatBytes, formatQuantity } from "../../core/figures.ts";
import type { MergeTaskOptions, MergeTaskReport, TaskReport } from "../../index.ts";
import type { Outcome } from "../command.ts";
import { longName } from "../flag.ts";
import type { GivenTask } from "../flags/tasks.ts";
import { FLAGS, type FlagName, type Flags, MACHINE, OUTPUT } from "../options.ts";
import { factTable, formatDuration, type View } from "../render.ts";
import type { Session } from "../session.ts";

/** Flags that every task accepts: the plan decides what is written, and `merge` verifies. */
const OF_TASKS: readonly FlagName[] = [
  ...(["task", "overwrite", "directIo", "plugin", "events"] as const),
  ...MACHINE,
  ...OUTPUT,
];

/** @throws USAGE */
export function refuseForTask(flags: Flags, positionals: readonly unknown[]): void {
  if (flags.plan === undefined) throw new IsologitError("USAGE", "--task needs --plan");
  if (positionals.length > 0) refuse("SRC", "give it to `isologit plan`");
  refuseOthers(flags, [...OF_TASKS, "plan", "resume"], "give it to `isologit plan` or to `isologit merge`");
}

/** @returns what is verified. @throws USAGE */
export function levelOfMergeTask(flags: Flags): NonNullable<MergeTaskOptions["verify"]> {
  refuseOthers(flags, [...OF_TASKS, "verify"], "give it to the merge that follows");
  const { verify = "logits" } = flags;
  if (verify === "off") refuse("--verify off", "leave the tasks out that compare");
  return verify;
}

function refuseOthers(flags: Flags, accepted: readonly FlagName[], next: string): void {
  for (const name of Object.keys(flags) as FlagName[]) {
    // flags have no other keys
    if (!accepted.includes(name)) refuse(longName(FLAGS[name]), next);
  }
}

function refuse(what: string, next: string): never {
  throw new IsologitError("USAGE", `${what} has no meaning with --task`, {}, { next });
}

/** Variables with which an engine numbers the tasks of one job. */
interface Numbered {
  readonly engine: string;
  readonly index: number;
  /** absent: the engine does not say it */
  readonly count?: number;
}

/**
 * The number of a task, also from the variables of an engine.
 *
 * @throws USAGE where no engine numbers the process, or another number of tasks runs
 */
export function taskOf({ index, count }: GivenTask, env: Session["env"]): { index: number; count: number } {
  if (index !== "auto") return { index, count: count! }; // the flag's reader accepts no number without a count
  const numbered = numberedBy(env);
  if (numbered === null) {
    const next = "give --task I/N, or run it in an array job";
    throw new IsologitError(
      "USAGE",
      "--task is auto, and neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set",
      {},
      { next },
    );
  }
  const all = count ?? numbered.count;
  if (all === undefined) {
    throw new IsologitError(
      "USAGE",
      `${numbered.engine} does not say the number of tasks: give --task auto/N`,
    );
  }
  if (numbered.count !== undefined && numbered.count !== all) {
    const next = "to run single tasks again, give --task I/N";
    const message = `the array of ${numbered.engine} has ${numbered.count} tasks, and --task says ${all}`;
    throw new IsologitError("USAGE", message, {}, { next });
  }
  return { index: numbered.index, count: all };
}

function numberedBy(env: Session["env"]): Numbered | null {
  const number = (name: string): number | undefined => {
    const text = env[name];
    return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined;
  };
  const id = number("SLURM_ARRAY_TASK_ID");
  const count = number("SLURM_ARRAY_TASK_COUNT");
  if (id !== undefined) {
    const index = id - (number("SLURM_ARRAY_TASK_MIN") ?? 0);
    return { engine: "Slurm", index, ...(count !== undefined && { count }) };
  }
  const completion = number("JOB_COMPLETION_INDEX");
  return completion === undefined ? null : { engine: "Kubernetes", index: completion };
}

export function taskOutcome(report: TaskReport): Outcome {
  return { report, exit: 0, text: (view) => taskText(report, view) };
}

function taskText(report: TaskReport, view: View): readonly string[] {
  const { task, tensors, kept, staged } = report;
  const name = `task ${task.index}/${task.count}`;
  const headline = `${name}: ${formatQuantity(tensors, "tensor")} in ${escapeControls(staged)}`;
  if (view.quiet) return [headline];
  return [
    headline,
    ...factTable(view, [
      ["written", `${formatQuantity(tensors - kept, "tensor")}, ${formatBytes(report.bytesWritten)}`],
      ["earlier run", kept === 0 ? null : `${formatQuantity(kept, "tensor")} were there already`],
      ["read", formatBytes(report.bytesRead)],
      ["time", formatDuration(report.seconds)],
      ["plan", view.verbose ? escapeControls(report.plan) : null],
    ]),
  ];
}

export function mergeTaskOutcome(report: MergeTaskReport): Outcome {
  return { report, exit: 0, text: (view) => mergeTaskText(report, view) };
}

function mergeTaskText(report: MergeTaskReport, view: View): readonly string[] {
  const { task, compared, different, staged, layers } = report;
  const name = `task ${task.index}/${task.count}`;
  const headline = `${name}: compared ${formatQuantity(compared, "tensor")} in ${escapeControls(staged)}`;
  if (view.quiet) return [headline];
  return [
    headline,
    ...factTable(view, [
      [
        "different",
        different === 0 ? "none" : `${formatQuantity(different, "tensor")}: \`merge\` names them`,
      ],
      ["layers", layers && `${layers.from} to ${layers.to - 1} of the forward passes`],
      ["run on", layers && `${escapeControls(layers.backend)}, ${escapeControls(layers.device)}`],
      ["read", formatBytes(report.bytesRead)],
      ["time", formatDuration(report.seconds)],
      ["plan", view.verbose ? escapeControls(report.plan) : null],
    ]),
  ];
}
