/** `merge`: completes and verifies what the tasks of a plan wrote. */
import type { PlannedOptions } from "../../../index.ts";
import { defineCommand } from "../../command.ts";
import { LIMITS, MACHINE, PROMPT, SIGNING, WITH_REPORTS } from "../../options.ts";
import { convertOutcome } from "../convert.ts";

const PLAN_FILE = { name: "PLAN", about: "file that `isologit plan --out` wrote" } as const;

export const merge = defineCommand<PlannedOptions>({
  name: "merge",
  summary: "complete and verify what the tasks of a plan wrote, and put it in place",
  positionals: [PLAN_FILE],
  flags: [
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
  examples: ["merge plan.json", "merge plan.json --verify bytes --json"],
  async run({ positionals: { PLAN }, options }, { library }) {
    return convertOutcome("convert", await library.merge(PLAN!, options));
  },
});
