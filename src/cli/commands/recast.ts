/** `recast`: writes another dtype in the same format. */
import { RECAST_TARGETS } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import type { ConvertOptions } from "../../index.ts";
import { DESTINATION, defineCommand, SOURCE } from "../command.ts";
import { CONVERT_FLAGS, convertOutcome } from "./convert.ts";

export const recast = defineCommand<ConvertOptions>({
  name: "recast",
  summary: "write a checkpoint in the same format with another dtype",
  positionals: [SOURCE, DESTINATION],
  flags: CONVERT_FLAGS,
  examples: [
    "recast ./nemotron-h-8b ./nemotron-h-8b-fp8 --dtype fp8-e4m3",
    "recast ./nemotron-h-8b ./f32 --dtype f32 --verify bytes",
  ],
  async run({ positionals: { SRC, DST }, options }, { library }) {
    if (options.dtype === undefined) {
      const [, ...targets] = RECAST_TARGETS;
      const next = `add --dtype with ${targets.slice(0, -1).join(", ")} or ${targets.at(-1)}`;
      throw new IsologitError("USAGE", "--dtype is missing; recast needs it", {}, { next });
    }
    return convertOutcome("recast", await library.recast(SRC!, DST!, options));
  },
});
