/** Finds the family of a checkpoint by its config, and describes the model: settings, layers and roles. */
import { type Checkpoint, tensorKey } from "../core/checkpoint.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import { canonicalJson } from "../core/hash.ts";
import type { Dialect, KeyRemark, ObservedFacts } from "./dialect.ts";
import { ruleApplies } from "./expand.ts";
import type { Family } from "./family.ts";
import type { IgnoredEntries, RecognisedModel, Role } from "./model.ts";
import { type Config, type Dims, type Layer, type RoleSpec, roleKey, type Settings } from "./structure.ts";

/** @throws FAMILY_UNKNOWN, and the errors of the dialect's config reader */
export function modelOf(checkpoint: Checkpoint, families: readonly Family[]): RecognisedModel {
  const { hints = {} } = checkpoint;
  const family =
    familyOf(checkpoint.config, families) ?? (hints.like && familyOf(hints.like.config, families));
  if (family === undefined) throw unknownFamilyError(checkpoint, families);
  const dialect = dialectOf(family, checkpoint.dialect, checkpoint.config);
  const dropped = new Set(droppedFrom(checkpoint, dialect).flatMap(({ names }) => names));
  const like =
    hints.like &&
    dialectOf(family, hints.like.dialect, hints.like.config).settings(hints.like.config, { tensors: [] })
      .settings;
  const seen: ObservedFacts = {
    tensors: checkpoint.tensors.filter((tensor) => !dropped.has(tensorKey(tensor))),
    ...(checkpoint.weightFiles.length > 0 && { files: checkpoint.weightFiles.map(({ path }) => path) }),
    ...(hints.vocab !== undefined && { vocab: hints.vocab }),
    ...(like !== undefined && { like }),
    ...(dropped.size > 0 && { ignored: [...dropped] }),
    ...(checkpoint.constants !== undefined && { constants: checkpoint.constants }),
  };
  const { settings, passthrough, notes, tied = false } = dialect.settings(checkpoint.config, seen);
  if (checkpoint.loadedConfig !== undefined)
    refuseOtherRecord(
      checkpoint.config,
      checkpoint.loadedConfig,
      (config) => dialect.settings(config, seen).settings,
    );
  const dims = family.dims(settings);
  const layers = family.layers(settings);
  const shards = dialect.parallelism(seen, { settings, dims, layers }, checkpoint.config);
  const roles = rolesOf(family, dims, layers);
  return { family, dialect, settings, passthrough, notes, tied, dims, layers, parallelism: shards, roles };
}

/**
 * The family that claims a config; undefined if none does.
 *
 * @throws CONFIG_INVALID if several do, because then the order of a list would decide; UNSUPPORTED from `claims`
 */
export function familyOf(config: Config, families: readonly Family[]): Family | undefined {
  const [family, other] = families.filter((known) => known.claims(config));
  if (other === undefined) return family;
  const message = `the families ${family!.id} and ${other.id} both claim this config`;
  const next = "remove the keys that belong to another model, or leave out the plug-in with one of the two";
  throw new IsologitError("CONFIG_INVALID", message, {}, { next });
}

function unknownFamilyError({ config, dialect, store }: Checkpoint, families: readonly Family[]) {
  const known = `the families known here are ${families.map(({ id }) => id).join(", ")}`;
  const name =
    config.model_type ?? config._target_ ?? config.target ?? config["general.architecture"] ?? null;
  const model =
    dialect === "hf" ? `model_type is ${JSON.stringify(name)}` : `the model is ${JSON.stringify(name)}`;
  const file = dialect === "hf" ? "config.json" : store.url;
  return new IsologitError("FAMILY_UNKNOWN", `${model}; ${known}`, { file });
}

/** @throws CONFIG_INVALID if the record that other software loads describes another model, and the errors of its keys */
function refuseOtherRecord(
  config: Config,
  { file, config: loaded }: NonNullable<Checkpoint["loadedConfig"]>,
  settingsOf: (config: Config) => Settings,
): void {
  const entries = Object.entries(loaded).filter(([, value]) => value !== null && value !== undefined);
  const withKeys = (changed: typeof entries) => {
    try {
      return canonicalJson(settingsOf({ ...config, ...Object.fromEntries(changed) }));
    } catch (error) {
      throw withLocation(error, { file });
    }
  };
  const settings = canonicalJson(settingsOf(config));
  if (withKeys(entries) === settings) return;
  const [key, value] = entries.find((entry) => withKeys([entry]) !== settings) ?? entries[0]!;
  const message = `${key} is ${canonicalJson(value)} in ${file}, which is loaded, and ${canonicalJson(config[key] ?? null)} in the config that is read here`;
  const next = "correct the wrong one of the two: the training run used one value";
  throw new IsologitError("CONFIG_INVALID", message, { file }, { next });
}

/**
 * @param config of a checkpoint; absent: the dialect is to be written
 * @throws UNSUPPORTED with the reason, where the family has one
 */
export function dialectOf(family: Family, id: string, config?: Config): Dialect {
  const { absentDialects = {}, dialects } = family;
  const variant = dialects.find((d) => d.variantOf === id && config !== undefined && d.reads?.(config));
  const dialect = variant ?? dialects.find((d) => d.id === id);
  if (dialect !== undefined) return dialect;
  const reason = Object.hasOwn(absentDialects, id) ? `: ${absentDialects[id]}` : "";
  const names = dialects.filter(({ variantOf }) => variantOf === undefined).map((one) => one.id);
  const next = `choose a format of the dialect ${names.join(" or ")}; \`isologit formats\` lists them`;
  throw new IsologitError("UNSUPPORTED", `${family.id} has no dialect ${id}${reason}`, {}, { next });
}

/** Findings about config keys that change no setting; none if no family claims the config or a family refuses it. */
export function keyRemarksOf(
  { config, dialect: id }: Checkpoint,
  families: readonly Family[],
): readonly KeyRemark[] {
  try {
    const family = familyOf(config, families);
    return family?.dialects.find((dialect) => dialect.id === id)?.keyRemarks(config) ?? [];
  } catch (error) {
    if (error instanceof IsologitError) return []; // `modelOf` reports the refusal itself
    throw error;
  }
}

/** All roles in execution order: those before the layers, the layers, those after them, the prediction layers. */
export function rolesOf(family: Family, d: Dims, layers: readonly Layer[]): ReadonlyMap<string, Role> {
  const roles = new Map<string, Role>();
  const add = (spec: RoleSpec, layer: Layer | null) => {
    if (spec.when?.(d) === false || (layer !== null && !ruleApplies(spec, layer))) return;
    for (const expert of expertsOf(spec, d)) {
      const key = roleKey(spec.role, layer, expert);
      roles.set(key, { key, spec, layer, expert, shape: spec.shape(d) });
    }
  };
  const lastLayered = family.roles.findLastIndex((spec) => spec.on !== undefined);
  const [before, after] = [family.roles.slice(0, lastLayered), family.roles.slice(lastLayered)];
  const layered = family.roles.filter((spec) => spec.on !== undefined);
  for (const spec of before) if (spec.on === undefined) add(spec, null);
  for (const layer of layers) if (layer.stack === "main") for (const spec of layered) add(spec, layer);
  for (const spec of after) if (spec.on === undefined) add(spec, null);
  for (const layer of layers) if (layer.stack === "mtp") for (const spec of layered) add(spec, layer);
  return roles;
}

function expertsOf(spec: RoleSpec, d: Dims): readonly (number | null)[] {
  return spec.experts === undefined ? [null] : Array.from({ length: spec.experts(d) }, (_, i) => i);
}

/** Pickled entries are not tensors and are not read. One that the dialect does not list is reported, not refused. */
const UNREAD = "other pickled entries";

export function droppedFrom({ tensors, objects }: Checkpoint, { drop }: Dialect): readonly IgnoredEntries[] {
  const reasonOf = (name: string) => drop.find(({ match }) => match.test(name))?.why;
  const found = new Map<string, string[]>();
  const add = (why: string, name: string) => found.set(why, [...(found.get(why) ?? []), name]);
  for (const tensor of tensors) {
    const why = reasonOf(tensor.name);
    if (why !== undefined) add(why, tensorKey(tensor));
  }
  for (const name of objects) add(reasonOf(name) ?? UNREAD, name);
  return [...found].map(([why, names]) => ({ why, names }));
}
