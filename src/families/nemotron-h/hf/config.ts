/**
 * config.json for a model that came from elsewhere: the keys of the published releases, which NVIDIA's remote code
 * and Transformers both load. Keys that say nothing of the model are left out, so that each takes its own default.
 */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput } from "../../dialect.ts";
import { ONLY_KEYS } from "./other-keys.ts";
import { SETTING_KEYS } from "./setting-keys.ts";

/** What travels, by the key that holds it here. */
export const ASIDES = {
  maxPositions: "max_position_embeddings",
  chunk: "chunk_size",
  residualF32: "residual_in_fp32",
} as const;

/** A setting, and the keys that say it: releases and Transformers differ in some. */
const KEYS: readonly (readonly [setting: string, ...keys: string[]])[] = SETTING_KEYS.filter(
  ({ setting }) => setting !== "latent",
).map(({ setting, key, others = [] }) => {
  return [setting, key, ...others.filter(({ written }) => written).map((other) => other.key)];
});

/** The key that says a setting, by the name that the published releases give it. */
export function keyOf(setting: string): string | undefined {
  return KEYS.find(([name]) => name === setting)?.[1];
}

/** @throws PLAN_IMPOSSIBLE for a model that no such config can say */
export function configJson({
  settings,
  passthrough,
  dtype,
}: Pick<ConfigInput, "settings" | "passthrough" | "dtype">) {
  if (settings.mixerEps !== undefined) {
    const message = `its epsilon is ${settings.eps}, and ${settings.mixerEps} in the norm of a Mamba layer, as in Megatron whatever the config says; config.json has one epsilon for both`;
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
  for (const [ours, key] of Object.entries(ASIDES))
    if (passthrough[ours] !== undefined) config[key] = passthrough[ours];
  if (Number(settings.latent ?? 0) > 0) config.moe_latent_size = settings.latent;
  if (settings.experts !== undefined) config.n_shared_experts = 1;
  return { config: sorted(config), notes: [] };
}

/** The only values that are computed; some releases of a loader have other defaults. */
const FIXED = Object.fromEntries(
  ONLY_KEYS.filter(({ written }) => written).map(({ key, only }) => [key, only[0]]),
);

/** By key, as every published config is. */
function sorted(config: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
}
