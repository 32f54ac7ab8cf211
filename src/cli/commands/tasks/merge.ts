/** `merge`: completes and verifies what the tasks of a plan wrote. */
import type { MergeOptions } from "../../../index.ts";
import { defineCommand } from "../../command.ts";
import { LIMITS, MACHINE, PROMPT, SIGNING, WITH_REPORTS } from "../../options.ts";
import { levelOfMergeTask, mergeTaskOutcome, taskOf } from "../../tasks/share.ts";
import { convertOutcome } from "../convert.ts";

const PLAN_FILE = { name: "PLAN", about: "file that `isologit plan --out` wrote" } as const;

export const merge = defineCommand<MergeOptions>({
  name: "merge",
  summary: "complete and verify what the tasks of a plan wrote, and put it in place",
  positionals: [PLAN_FILE],
  flags: [
    "task",
    "tasks",
    "verify",
    "strict",
    ...SIGNING,
    ...LIMITS,
    ...PROMPT,
    "plugin",
    ...MACHINE,
    "overwrite",
    "directIo",
    ...WITH_REPORTS,
  ],
  helps: {
    task: {
      about:
        "only verify the share I of N of what was written, for the merge that follows: compare its bytes with the source, and run its layers; auto, or auto/N, takes I from the array of Slurm or the Indexed Job of Kubernetes in which the process runs",
    },
    tasks: {
      about: "number of tasks that compare (--task): the merge begins only after each of them has ended",
    },
  },
  examples: [
    "merge plan.json",
    "merge plan.json --verify bytes --json",
    "merge plan.json --task 0/8",
    "merge plan.json --tasks 8",
  ],
  async run({ positionals: { PLAN }, flags, options }, { library, env }) {
    if (flags.task !== undefined) {
      const given = { ...options, verify: levelOfMergeTask(flags) };
      return mergeTaskOutcome(await library.mergeTask(PLAN!, taskOf(flags.task, env), given));
    }
    return convertOutcome("convert", await library.merge(PLAN!, options));
  },
});
