/** What the dialects of llama.cpp for models of attention and MLPs share. */
import { IsologitError } from "../../../core/errors.ts";
import type { Dialect } from "../../dialect.ts";
import type { Config, Dims, Settings } from "../../structure.ts";
import { wholeParallelism } from "../whole-parallelism.ts";
import { ROTARY_DROP, rotaryConstants } from "./rotary.ts";

interface OwnParts<D extends Dims> extends Pick<Dialect<D>, "rules" | "settings" | "config"> {
  /** why llama.cpp would refuse a model, or compute it in another way; none if it would not */
  limits(settings: Settings): readonly Limit[];
}

/** Whether a limit of llama.cpp stops a model, and the limit in words. */
export type Limit = readonly [applies: boolean, limit: string];

/** @throws PLAN_IMPOSSIBLE for the first limit that applies */
export function refuseLimited(limits: readonly Limit[]): void {
  const limit = limits.find(([applies]) => applies)?.[1];
  if (limit === undefined) return;
  const next = "convert it to hf, packed, nemo2, bridge or megatron, which can hold it";
  throw new IsologitError("PLAN_IMPOSSIBLE", `llama.cpp cannot run this model: ${limit}`, {}, { next });
}

export const ggufDialect = <D extends Dims>({ limits, ...own }: OwnParts<D>): Dialect<D> => ({
  ...own,
  id: "gguf",
  stacks: { main: "blk.{outer}." },
  drop: ROTARY_DROP,
  constants: ({ settings }) => rotaryConstants(settings),
  objects: () => [],
  vocabulary: vocabularyIn,
  parallelism: (_, model) => wholeParallelism(model),
  cut(model) {
    refuseLimited(limits(model.settings));
    return wholeParallelism(model);
  },
  keyRemarks: () => [],
});

/** Size of the vocabulary that the keys name. */
export function vocabularyIn(config: Config): number | undefined {
  const vocab = config[`${String(config["general.architecture"])}.vocab_size`];
  return typeof vocab === "number" ? vocab : undefined;
}
