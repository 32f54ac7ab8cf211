/**
 * Writes config.json for a model from another dialect, with the keys of the published releases, which NVIDIA's remote code
 * and Transformers both load. Keys that do not describe the model are left out, so that loaders use their defaults.
 */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput } from "../../dialect.ts";
import { ONLY_KEYS } from "./other-keys.ts";
import { SETTING_KEYS } from "./setting-keys.ts";

/** Passthrough values and their keys. */
export const PASSTHROUGH_KEYS = {
  maxPositions: "max_position_embeddings",
  chunk: "chunk_size",
  residualF32: "residual_in_fp32",
} as const;

/** Each setting with the keys that are written for it: some have two, because releases and Transformers differ. */
const KEYS: readonly (readonly [setting: string, ...keys: string[]])[] = SETTING_KEYS.filter(
  ({ setting }) => setting !== "latent",
).map(({ setting, key, others = [] }) => {
  return [setting, key, ...others.filter(({ written }) => written).map((other) => other.key)];
});

/** The key of a setting in the published releases. */
export function keyOf(setting: string): string | undefined {
  return KEYS.find(([name]) => name === setting)?.[1];
}

/** @throws PLAN_IMPOSSIBLE for a model that such a config cannot describe */
export function writeConfig({
  settings,
  passthrough,
  dtype,
}: Pick<ConfigInput, "settings" | "passthrough" | "dtype">) {
  if (settings.mixerEps !== undefined) {
    const message = `its epsilon is ${settings.eps}, but ${settings.mixerEps} in the norm of a Mamba layer, because Megatron always uses that value there; config.json has one epsilon for both`;
    const next = "convert it to nemo2, bridge or megatron";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  }
  const config: Record<string, unknown> = {
    architectures: ["NemotronHForCausalLM"],
    model_type: "nemotron_h",
    num_hidden_layers: String(settings.pattern).length,
    torch_dtype: dtype,
    ...FIXED,
  };
  for (const [setting, ...keys] of KEYS) {
    if (settings[setting] !== undefined) for (const key of keys) config[key] = settings[setting];
  }
  for (const [name, key] of Object.entries(PASSTHROUGH_KEYS))
    if (passthrough[name] !== undefined) config[key] = passthrough[name];
  if (Number(settings.latent ?? 0) > 0) config.moe_latent_size = settings.latent;
  if (settings.experts !== undefined) config.n_shared_experts = 1;
  return { config: sortKeys(config), notes: [] };
}

/** Keys with only one supported value; they are written because some releases of a loader have other defaults. */
const FIXED = Object.fromEntries(
  ONLY_KEYS.filter(({ written }) => written).map(({ key, only }) => [key, only[0]]),
);

/** Sorted by key, like every published config. */
function sortKeys(config: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
}
