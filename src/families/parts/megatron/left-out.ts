/** Tensors that Megatron's training stores beside the weights. */
import type { Dialect } from "../../dialect.ts";

/** The keys of the optimizer contain those of the weights: only the start of a name distinguishes them. */
export const TRAINING_TENSORS: Dialect["drop"] = [
  { match: /^optimizer(\.|$)/, why: "optimizer state" },
  { match: /(^|\.)_extra_state(\/|$)/, why: "extra state of modules" },
  { match: /^rng_state(\/|$)/, why: "random number generators" },
  {
    match: /^(common_state|opt_param_scheduler|rerun_state_machine_state|args|iteration)(\/|$)/,
    why: "training state",
  },
];
