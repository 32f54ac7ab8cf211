/** What of a Nemotron-H model must divide evenly among ranks. Key and value heads need not: only their fused rows must. */
import type { CutSize } from "../../parts/megatron/parallelism.ts";
import type { Structure } from "../../structure.ts";
import type { NemotronHDims } from "../dims.ts";

export function cutSizes({ dims: d, settings }: Structure<NemotronHDims>): readonly CutSize[] {
  const tp = (what: string, size: number) => ({ what, size, parts: "tp" }) as const;
  return [
    tp("Mamba groups", d.groups),
    tp("Mamba heads", d.mambaHeads),
    tp("attention heads", d.heads),
    tp("rows of queries, keys and values", d.q + 2 * d.kv),
    tp("MLP rows", d.ffn),
    tp("rows of the shared expert", d.moeShared),
    { what: "rows of an expert", size: d.moeFfn, parts: "expertTp" },
    tp("rows of a prediction's projection", settings.mtpSteps === undefined ? 0 : d.hidden),
  ];
}
