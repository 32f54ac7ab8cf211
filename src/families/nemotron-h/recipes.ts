/**
 * Recipes by name, the default first. Each of those that follow a published checkpoint says in `source` where its choice is
 * described; they choose which weights are FP8, and not that others of the release are NVFP4.
 */
import type { Recipe } from "../family.ts";

const MAMBA = ["ssm.in", "ssm.out"] as const;
const MLP = ["mlp.up", "mlp.down"] as const;
const EXPERTS = ["moe.up", "moe.down", "moe.shared.up", "moe.shared.down"] as const;

export const recipes: readonly Recipe[] = [
  {
    id: "nemotron-h",
    source: "the training recipe for Mamba and MLP blocks, with attention as in every published FP8 member",
    keepEnds: 2,
    cast: [...MAMBA, ...MLP, ...EXPERTS],
  },
  {
    // Without the head: engines do not read a quantized head under the target `Linear`.
    id: "all-linear",
    source: "every projection in the layers",
    keepEnds: 0,
    cast: [...MAMBA, "attn.*", "mlp.*", "moe.*"],
  },
  {
    // The paper keeps the first and last four GEMMs: with two in a block, that is two layers.
    id: "paper",
    source: "Nemotron-H report, arXiv 2504.03624: all GEMMs but the first and last four",
    keepEnds: 2,
    cast: [...MAMBA, "attn.*", ...MLP],
  },
  {
    id: "nano-9b-v2",
    source: "model card of NVIDIA-Nemotron-Nano-9B-v2-FP8: Mamba and MLP layers, no attention layer",
    keepEnds: 0,
    cast: [...MAMBA, ...MLP],
  },
  {
    id: "nano-30b",
    source: "module list of Nemotron-3-Nano-30B-A3B: experts and Mamba, but no Mamba layer before attention",
    keepEnds: 0,
    cast: [...MAMBA, ...EXPERTS],
    keepBefore: [{ kind: "mamba", next: "attention" }],
  },
  {
    id: "super",
    source: "docs.nvidia.com/nemotron, super3/quantization: experts and Mamba, no latent projection",
    keepEnds: 0,
    cast: [...MAMBA, ...EXPERTS],
  },
];
