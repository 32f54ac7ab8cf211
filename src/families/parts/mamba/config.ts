/** The keys of config.json for a Mamba-2 mixer, as Bamba, Granite 4.0 and Falcon-H1 spell them. */
import type { Config, Settings } from "../../structure.ts";
import { type ConfigJson, invalidKeyError, type SettingKey } from "../config-json.ts";
import type { OnlyKey, UnreadKeys } from "../config-keys.ts";
import { modelClass, settingRow } from "../hf/keys.ts";
import { count, flag, type KeyValue } from "../key-values.ts";

/** The least and the largest time step. A limit that no time step reaches means no limit: releases write Infinity, 1e30 and 1e308. */
export const timeStepLimits: KeyValue = {
  expected: "two numbers of at least 0",
  read(value) {
    const isLimits =
      Array.isArray(value) &&
      value.length === 2 &&
      value.every((limit) => typeof limit === "number" && limit >= 0);
    return isLimits ? [value[0], value[1] >= 1e30 ? "Infinity" : value[1]] : undefined;
  },
};

/** Width of a head; "auto": that of the mixer divided by the number of heads. */
const headWidth: KeyValue = {
  expected: `${count.expected}, or auto`,
  read: (value) => (value === "auto" ? value : count.read(value)),
};

/** Rows of the settings, with the defaults of Transformers. */
export function mambaRows(type: string): readonly SettingKey[] {
  const row = settingRow(type);
  return [
    row("mambaHeads", "mamba_n_heads", count, { absent: 128 }),
    row("mambaHeadDim", "mamba_d_head", headWidth, { absent: "auto" }),
    row("groups", "mamba_n_groups", count, { absent: 1 }),
    row("state", "mamba_d_state", count, { absent: 256 }),
    row("convKernel", "mamba_d_conv", count, { absent: 4 }),
    row("expand", "mamba_expand", count, { absent: 2 }),
    row("mambaProjBias", "mamba_proj_bias", flag, { absent: false }),
    row("dtLimits", "time_step_limit", timeStepLimits, { absent: [0, "Infinity"] }),
  ];
}

/** Keys with one supported value. */
export const mambaOnlyRows = (type: string): readonly OnlyKey[] => [
  {
    ...{ key: "mamba_conv_bias", source: modelClass(type), only: [true] },
    does: "drops the bias of Mamba's convolution",
  },
];

/** Keys on which nothing depends. */
export const mambaUnreadRows = (type: string): readonly UnreadKeys[] => [
  {
    why: "how the scan is divided, not what it computes",
    source: modelClass(type),
    keys: ["mamba_chunk_size"],
  },
  { why: "how weights are initialised", source: modelClass(type), keys: ["time_step_min", "time_step_max"] },
];

interface MambaSettings extends Settings {
  readonly mambaHeads: number;
  readonly mambaHeadDim: number;
  readonly groups: number;
  readonly state: number;
  readonly convKernel: number;
  readonly mambaProjBias: boolean;
  readonly dtMin: number;
  readonly dtMax: number | "Infinity";
}

/**
 * The settings of a mixer.
 *
 * @param inner the inner width, which must be that of all heads, and its keys in words
 * @throws CONFIG_INVALID for widths that disagree or do not divide evenly
 */
export function readMamba(
  config: Config,
  reader: ConfigJson,
  inner: { readonly width: number; readonly says: string },
): MambaSettings {
  const need = (name: string) => reader.need(config, name);
  const [mambaHeads, groups] = [need("mambaHeads"), need("groups")];
  const given = reader.read(config, "mambaHeadDim");
  const mambaHeadDim = given === "auto" ? inner.width / mambaHeads : Number(given);
  if (mambaHeads * mambaHeadDim !== inner.width || !Number.isInteger(mambaHeadDim))
    invalidKeyError(
      `mamba_n_heads is ${mambaHeads} and mamba_d_head ${given}, but their product must be the inner width, ${inner.width} (${inner.says})`,
    );
  if (mambaHeads % groups !== 0)
    invalidKeyError(`mamba_n_heads is ${mambaHeads}, which is not a multiple of mamba_n_groups, ${groups}`);
  const [dtMin, dtMax] = reader.read(config, "dtLimits") as [number, number | "Infinity"]; // the table parses it to this type
  return {
    ...{ mambaHeads, mambaHeadDim, groups, state: need("state"), convKernel: need("convKernel") },
    mambaProjBias: reader.read(config, "mambaProjBias") === true,
    ...{ dtMin, dtMax },
  };
}

/** The inner width of families whose config names a factor of the hidden width. */
export function expandedWidth(config: Config, reader: ConfigJson) {
  const width = reader.need(config, "expand") * reader.need(config, "hidden");
  return { width, says: "mamba_expand × hidden_size" };
}
