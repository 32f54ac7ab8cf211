/** How Hugging Face checkpoints name the tensors of a Mamba mixer. */
import type { Rule } from "../../dialect.ts";
import type { MambaDims } from "./dims.ts";

const NAMES = {
  "ssm.in": "in_proj.weight",
  "ssm.in.bias": "in_proj.bias",
  "ssm.conv": "conv1d.weight",
  "ssm.conv.bias": "conv1d.bias",
  "ssm.A_log": "A_log",
  "ssm.D": "D",
  "ssm.dt_bias": "dt_bias",
  "ssm.norm": "norm.weight",
  "ssm.out": "out_proj.weight",
  "ssm.out.bias": "out_proj.bias",
} as const;

/**
 * @param on     kinds of layers with a Mamba mixer
 * @param prefix name of the module, with its dot
 */
export const mambaRules = <D extends MambaDims>(
  on: readonly string[],
  prefix = "mamba.",
): readonly Rule<D>[] =>
  Object.entries(NAMES).map(([role, name]) => ({ name: prefix + name, on, is: (of) => of(role) }));
