/** Wrong tables of uses for the goldens of Nemotron-H: faults that lie in code, so that no byte of a file shows them. */
import type { Native } from "../../../src/families/forward.ts";
import { exchange, halves, moved, refed, renamed } from "./wiring.ts";

/** A change of one side's table, and the first layer and door at which it must show. */
type CodeFault = readonly [break_: (native: Native) => Native, layer: number, door: string];

/** sharded: M-M-M*-MM*-M-; the first Mamba layer is 0, MLP 1, attention 5, the head 13. */
export const FAULTS: Readonly<Record<string, CodeFault>> = {
  "z and x swapped": [refed("mamba", "mixer.in_proj.weight", exchange("z", "x")), 0, "z"],
  "B and C swapped": [refed("mamba", "mixer.in_proj.weight", exchange("B", "C")), 0, "B"],
  "halves of the groups of B swapped": [refed("mamba", "mixer.in_proj.weight", halves("B")), 0, "B"],
  "halves of the groups of C swapped": [refed("mamba", "mixer.in_proj.weight", halves("C")), 0, "C"],
  "dt a row too early": [refed("mamba", "mixer.in_proj.weight", moved("dt", -1)), 0, "dt"],
  "taps of B and C swapped": [
    refed("mamba", "mixer.conv1d.weight", exchange("taps.B", "taps.C")),
    0,
    "conv.B",
  ],
  "biases of B and C swapped": [
    refed("mamba", "mixer.conv1d.bias", exchange("bias.B", "bias.C")),
    0,
    "conv.B",
  ],
  "A_log and dt_bias swapped": [renamed("mamba", "mixer.A_log", "mixer.dt_bias"), 0, "y"],
  "D and dt_bias swapped": [renamed("mamba", "mixer.D", "mixer.dt_bias"), 0, "y"],
  "k and v swapped": [renamed("attention", "mixer.k_proj.weight", "mixer.v_proj.weight"), 5, "k"],
  "halves of the query heads swapped": [refed("attention", "mixer.q_proj.weight", halves("q")), 5, "q"],
  "halves of up swapped": [refed("mlp", "mixer.up_proj.weight", halves("up")), 1, "up"],
  "words of the head swapped": [refed("head", "lm_head.weight", halves("logits")), 13, "logits"],
  "the token table's other name": [
    (native) => {
      const [table] = native.uses.embedding;
      return { ...native, uses: { ...native.uses, embedding: [{ ...table!, name: "lm_head.weight" }] } };
    },
    -1,
    "residual",
  ],
};

/** moe: MEM*EMEM*E, its first expert layer 1. latent-moe: ME*EMEME and prediction layers of one step, * and E. */
export const EXPERT_FAULTS: typeof FAULTS = {
  "halves of the router's rows swapped": [refed("moe", "mixer.gate.weight", halves("route")), 1, "route"],
  "halves of the correction swapped": [
    refed("moe", "mixer.gate.e_score_correction_bias", halves("correction")),
    1,
    "scores",
  ],
  "halves of an expert's up swapped": [
    refed("moe", "mixer.experts.{expert}.up_proj.weight", halves("expert.up")),
    1,
    "expert.up.0",
  ],
  "halves of an expert's down swapped": [
    refed("moe", "mixer.experts.{expert}.down_proj.weight", halves("expert.down")),
    1,
    "expert.down.0",
  ],
  "halves of the shared expert's up swapped": [
    refed("moe", "mixer.shared_experts.up_proj.weight", halves("shared.up")),
    1,
    "shared.up",
  ],
  "halves of the shared expert's down swapped": [
    refed("moe", "mixer.shared_experts.down_proj.weight", halves("shared")),
    1,
    "shared",
  ],
};
export const LATENT_FAULTS: typeof FAULTS = {
  "halves of the way in swapped": [
    refed("moe", "mixer.fc1_latent_proj.weight", halves("latent")),
    1,
    "latent",
  ],
  "halves of the way out swapped": [
    refed("moe", "mixer.fc2_latent_proj.weight", halves("routed")),
    1,
    "routed",
  ],
  "norms of word and hidden state swapped": [
    renamed("mtpStart", "enorm.weight", "hnorm.weight"),
    9,
    "words.u",
  ],
  "halves of the step's projection swapped": [refed("mtpStart", "eh_proj.weight", halves("out")), 9, "out"],
};
