/** The prompts on which a cut is proved and its damage is measured. */
import type { LoadedModel } from "../checkpoint/load.ts";
import { IsologitError } from "../core/errors.ts";
import { type PromptOptions, promptOf } from "../inference/prompts.ts";
import type { CutPrompts } from "./proof.ts";

/** @throws USAGE as `promptOf`, and for several prompts beside another option of a prompt */
export async function cutPrompts(
  options: PromptOptions & { readonly prompts?: readonly (readonly number[])[] },
  { checkpoint, dims }: LoadedModel,
): Promise<CutPrompts> {
  const { prompts } = options;
  if (prompts === undefined) {
    const first = await promptOf(options, checkpoint, dims.vocab);
    return { first, all: [first.ids] };
  }
  if (options.ids !== undefined || options.prompt !== undefined)
    throw new IsologitError("USAGE", "`prompts` and another prompt were both given");
  if (prompts.length === 0) throw new IsologitError("USAGE", "`prompts` has no prompt");
  const all = await Promise.all(prompts.map((ids) => promptOf({ ids }, checkpoint, dims.vocab)));
  return { first: all[0]!, all: all.map(({ ids }) => ids) };
}
