/** `recast`: another dtype in the same format. */
import { IsologitError } from "../../core/errors.ts";
import { type Command, DESTINATION, SOURCE } from "../command.ts";
import { convertOptions } from "../request.ts";
import { CONVERTING, converted } from "./convert.ts";

export const recast: Command = {
  name: "recast",
  summary: "write a checkpoint in the same format with another dtype",
  places: [SOURCE, DESTINATION],
  flags: CONVERTING,
  examples: [
    "recast ./nemotron-h-8b ./nemotron-h-8b-fp8 --dtype fp8-e4m3",
    "recast ./nemotron-h-8b ./f32 --dtype f32 --verify bytes",
  ],
  async run({ SRC, DST }, flags, session) {
    if (flags.dtype === undefined) {
      const next = "add --dtype with f32, f16, bf16, fp8-e4m3 or fp8-e5m2";
      throw new IsologitError("USAGE", "--dtype is missing, recast needs it", {}, { next });
    }
    const options = await convertOptions(flags, session);
    return converted("recast", await session.library.recast(SRC!, DST!, options));
  },
};
