/**
 * How a distributed checkpoint of FalconH1Model runs: which stored rows produce which stream. Written by hand, apart from the
 * rules, because it checks them.
 */
import type { Native } from "../../forward.ts";
import { distMambaUses, sharedMambaUses } from "../../parts/megatron/mamba-native.ts";
import { byGroup, columns, fusedParts, rows } from "../../parts/megatron/native-uses.ts";
import type { FalconH1Dims } from "../dims.ts";

const TABLE = "embedding.word_embeddings.weight";
const hidden = (d: FalconH1Dims) => d.hidden;

export const megatron: Native<FalconH1Dims> = {
  dialect: "megatron",
  prefix: { main: "decoder.layers.{outer}." },
  uses: {
    embedding: [rows(TABLE, "vocabulary", (d) => d.vocab)],
    hybrid: [
      rows("norm.weight", "gain", hidden, ["mamba_mixer.in_proj.layer_norm_weight"]),
      ...sharedMambaUses<FalconH1Dims>("mamba_mixer.", "ssm.out"),
      ...distMambaUses<FalconH1Dims>("mamba_mixer."),
      { name: "self_attention.linear_qkv.weight", outputs: byGroup() },
      columns("self_attention.linear_proj.weight", "attn.out", (d) => d.q),
    ],
    mlp: [
      rows("mlp.linear_fc1.layer_norm_weight", "gain", hidden),
      fusedParts("mlp.linear_fc1.weight", (d) => ({ gate: d.ffn, up: d.ffn })),
      columns("mlp.linear_fc2.weight", "down", (d) => d.ffn),
    ],
    head: [
      rows("decoder.final_norm.weight", "gain", hidden, ["decoder.final_layernorm.weight"]),
      // a tied model has no head of its own
      rows("output_layer.weight", "logits", (d) => d.vocab, [TABLE]),
    ],
  },
};
