/** The keys of a Mamba-2 mixer, and what llama.cpp cannot compute of it. */
import type { Config, Settings } from "../../structure.ts";
import type { Limit } from "./dialect.ts";
import type { GgufKeys } from "./keys.ts";

/** @throws CONFIG_INVALID for widths that do not divide evenly */
export function readMamba(keys: GgufKeys) {
  const [mambaHeads, inner] = [keys.count("ssm.time_step_rank"), keys.count("ssm.inner_size")];
  const groups = keys.count("ssm.group_count");
  if (inner % mambaHeads !== 0)
    keys.refuse("ssm.inner_size", `must be a multiple of the heads, ${mambaHeads}`);
  if (mambaHeads % groups !== 0)
    keys.refuse("ssm.time_step_rank", `must be a multiple of ssm.group_count, ${groups}`);
  return {
    mambaHeads,
    mambaHeadDim: inner / mambaHeads,
    state: keys.count("ssm.state_size"),
    groups,
    convKernel: keys.count("ssm.conv_kernel"),
  };
}

export const mambaKeys = (s: Settings): Config => ({
  "ssm.conv_kernel": s.convKernel,
  "ssm.state_size": s.state,
  "ssm.group_count": s.groups,
  "ssm.inner_size": Number(s.mambaHeads) * Number(s.mambaHeadDim),
  "ssm.time_step_rank": s.mambaHeads,
});

/** What of a mixer llama.cpp cannot compute. */
export const mambaLimits = (s: Settings): readonly Limit[] => [
  [
    s.dtMin !== 0 || s.dtMax !== "Infinity",
    "it does not clamp time steps, and this model does (time_step_limit)",
  ],
  [
    s.mambaProjBias === true,
    "it has no biases in the projections of a Mamba layer, and this model has some (mamba_proj_bias)",
  ],
];

/** For families with one norm over the whole inner width of a Mamba layer. */
export const wholeNormLimit = (s: Settings): Limit => [
  s.groups !== 1,
  `it norms each of the ${s.groups} groups of a Mamba layer by itself, and this model has one norm over the whole inner width`,
];
