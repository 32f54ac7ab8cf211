/** A checkpoint as a model: every stored tensor accounted for by a rule, every role by a tensor, every shape agreed. */
import { type Checkpoint, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, sameShape } from "../core/dtype.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import { canonicalJson } from "../core/hash.ts";
import { movesOf, shapeOf } from "../core/mapping/layout.ts";
import { findCoverFault, invertMoves, type Move } from "../core/mapping/moves.ts";
import type { Dialect, KeyRemark, ObservedFacts } from "./dialect.ts";
import { type ExpectedTensor, leafRoles, ruleApplies, tensorsRead } from "./expand.ts";
import type { Family } from "./family.ts";
import { causesOf, causeText, misfitOf, type ShapeMisfit } from "./likely-cause.ts";
import type { Dropped, Matched, Recognised, Replica, Role } from "./model.ts";
import { type Config, type Dims, type Layer, type RoleSpec, roleKey, type Settings } from "./structure.ts";

/** @throws FAMILY_UNKNOWN, and what the dialect refuses */
export function modelOf(checkpoint: Checkpoint, families: readonly Family[]): Recognised {
  const { hints = {} } = checkpoint;
  const family = families.find(
    (f) => f.claims(checkpoint.config) || (hints.like && f.claims(hints.like.config)),
  );
  if (family === undefined) {
    if (checkpoint.dialect !== "hf") {
      throw new IsologitError("FAMILY_UNKNOWN", "its config is not that of a known family", {
        file: checkpoint.store.url,
      });
    }
    const type = JSON.stringify(checkpoint.config.model_type ?? null);
    throw new IsologitError("FAMILY_UNKNOWN", `model_type is ${type}, which no known family claims`, {
      file: "config.json",
    });
  }
  const dialect = dialectOf(family, checkpoint.dialect);
  const dropped = new Set(droppedFrom(checkpoint, dialect).flatMap(({ names }) => names));
  const like =
    hints.like && dialectOf(family, hints.like.dialect).settings(hints.like.config, { tensors: [] }).settings;
  const seen: ObservedFacts = {
    tensors: checkpoint.tensors.filter((tensor) => !dropped.has(tensorKey(tensor))),
    ...(checkpoint.weightFiles.length > 0 && { files: checkpoint.weightFiles.map(({ path }) => path) }),
    ...(hints.vocab !== undefined && { vocab: hints.vocab }),
    ...(like !== undefined && { like }),
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

/** @throws CONFIG_INVALID where another record, which software loads, says another model, and what that record's keys are refused for */
function refuseOtherRecord(
  config: Config,
  { file, config: passed }: NonNullable<Checkpoint["loadedConfig"]>,
  settingsOf: (config: Config) => Settings,
): void {
  const said = Object.entries(passed).filter(([, value]) => value !== null && value !== undefined);
  const withKeys = (entries: typeof said) => {
    try {
      return canonicalJson(settingsOf({ ...config, ...Object.fromEntries(entries) }));
    } catch (error) {
      throw withLocation(error, { file });
    }
  };
  const settings = canonicalJson(settingsOf(config));
  if (withKeys(said) === settings) return;
  const [key, value] = said.find((entry) => withKeys([entry]) !== settings) ?? said[0]!;
  const message = `${key} is ${canonicalJson(value)} in ${file}, which is loaded, and ${canonicalJson(config[key] ?? null)} in the config that is read here`;
  const next = "make both say what the model was trained with; the run that wrote them has one value";
  throw new IsologitError("CONFIG_INVALID", message, { file }, { next });
}

export function dialectOf(family: Family, id: string): Dialect {
  const dialect = family.dialects.find((d) => d.id === id);
  if (dialect === undefined) throw new IsologitError("UNSUPPORTED", `${family.id} has no dialect ${id}`);
  return dialect;
}

/** What a checkpoint's config says beside its settings; nothing where no family claims it, or one refuses to. */
export function keyRemarksOf(
  { config, dialect: id }: Checkpoint,
  families: readonly Family[],
): readonly KeyRemark[] {
  try {
    const family = families.find((one) => one.claims(config));
    return family?.dialects.find((one) => one.id === id)?.keyRemarks(config) ?? [];
  } catch (error) {
    if (error instanceof IsologitError) return []; // the refusal itself is told where the model is read
    throw error;
  }
}

/** Execution order: what comes before the layers, the layers, what comes after; prediction layers last. */
function rolesOf(family: Family, d: Dims, layers: readonly Layer[]): ReadonlyMap<string, Role> {
  const roles = new Map<string, Role>();
  const add = (spec: RoleSpec, layer: Layer | null) => {
    if (spec.when?.(d) === false || (layer !== null && !ruleApplies(spec, layer))) return;
    for (const expert of expertsOf(spec, d)) {
      const key = roleKey(spec.role, layer, expert);
      roles.set(key, { key, spec, layer, shape: spec.shape(d) });
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

/** Pickled entries are no tensors and stay unread: one that no rule of the dialect names is told, not refused. */
const UNREAD = "other pickled entries";

function droppedFrom({ tensors, objects }: Checkpoint, { drop }: Dialect): readonly Dropped[] {
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

/**
 * Ties a checkpoint's tensors to the family's roles.
 *
 * @param companions names of stored scales, which belong to weights and are no roles
 * @throws TENSOR_UNKNOWN, TENSOR_MISSING, SHAPE_MISMATCH naming tensors; nothing has been written by then
 */
export function matchRoles(
  checkpoint: Checkpoint,
  families: readonly Family[],
  companions: ReadonlySet<string>,
): Matched {
  const model = modelOf(checkpoint, families);
  const tensors = new Map(checkpoint.tensors.map((tensor) => [tensorKey(tensor), tensor]));
  const dropped = droppedFrom(checkpoint, model.dialect);
  const left = new Set(tensors.keys());
  for (const { names } of dropped) for (const name of names) left.delete(name);
  const found = new Finder(tensors, model);
  for (const stored of tensorsRead(model, model.dialect, model.parallelism)) found.take(stored);
  refuseMisfits(found.misfits, model);
  if (model.tied) found.tie();

  const unknown = [...left].filter((key) => !found.holds.has(key) && !companions.has(tensors.get(key)!.name));
  const missing = found.missing();
  if (missing.length > 0) throw absent("TENSOR_MISSING", "the config asks for", missing, lacking(unknown));
  if (unknown.length > 0)
    throw absent("TENSOR_UNKNOWN", "the weights hold", unknown, "for which the config has no place");
  for (const role of model.roles.values()) refuseUncovered(role, found.origin.get(role.key) ?? []);
  const { origin, holds, replicas } = found;
  return { ...model, checkpoint, tensors, roleSources: origin, holds, replicas, dropped };
}

/** Looks stored tensors up by their names, and notes what each holds. */
class Finder {
  readonly origin = new Map<string, Move[]>();
  readonly holds = new Map<string, readonly string[]>();
  readonly replicas: Replica[] = [];
  readonly misfits: ShapeMisfit[] = [];
  readonly #model: Recognised;
  readonly #tensors: ReadonlyMap<string, Tensor>;
  readonly #ranks: ReadonlySet<string>;
  readonly #lost: ExpectedTensor[] = [];
  /** by what they hold: a tensor that another rank holds alike is its replica */
  readonly #first = new Map<string, string>();
  readonly #held = new Set<string>();

  constructor(tensors: ReadonlyMap<string, Tensor>, model: Recognised) {
    this.#model = model;
    this.#tensors = tensors;
    this.#ranks = new Set([...tensors.values()].map(rankOf));
  }

  take(stored: ExpectedTensor): void {
    const { name, also, rank, layout } = stored;
    // Ranks of experts and of tensors may coincide: of their table only some cells are processes.
    if (!this.#ranks.has(rankOf(stored))) return;
    const keys = [name, ...also].map((one) => tensorKey({ name: one, ...(rank && { rank }) }));
    const key = keys.find((one) => this.#tensors.has(one));
    if (key === undefined) {
      this.#lost.push(stored);
      return;
    }
    const tensor = this.#tensors.get(key)!;
    if (!sameShape(tensor.shape, shapeOf(layout))) this.misfits.push(misfitOf(tensor, layout, this.#model));
    const leaves = leafRoles(layout);
    this.holds.set(key, leaves);
    for (const leaf of leaves) this.#held.add(`${rankOf(stored)} ${leaf}`);
    if (rank !== undefined) {
      const content = canonicalJson(layout);
      const first = this.#first.get(content);
      if (first !== undefined) {
        this.replicas.push({ tensor: key, of: first });
        return;
      }
      this.#first.set(content, key);
    }
    for (const [role, moves] of invertMoves(movesOf(layout), key)) {
      const known = this.origin.get(role);
      if (known === undefined) this.origin.set(role, [...moves]);
      else known.push(...moves);
    }
  }

  /** Gives a role that is tied and not stored the tensor of the other; where both are stored, they must be alike. */
  tie(): void {
    const { roles } = this.#model;
    for (const { key, spec } of roles.values()) {
      const shared = spec.tiedTo === undefined ? undefined : this.origin.get(spec.tiedTo);
      if (shared === undefined) continue;
      const own = this.origin.get(key)?.[0]?.of;
      if (own === undefined) {
        this.origin.set(key, shared);
        this.#held.add(` ${key}`);
      } else this.#mustEqual(this.#tensors.get(own!)!, this.#tensors.get(shared[0]!.of!)!);
    }
  }

  #mustEqual(one: Tensor, other: Tensor): void {
    if (one.dtype !== other.dtype)
      throw tiedApart(one.name, other.name, `it is ${one.dtype}, not ${other.dtype}`);
    this.replicas.push({ tensor: tensorKey(one), of: tensorKey(other), tied: true });
  }

  /** What a rank lacks: a tensor whose roles it holds in another cut is not missed. */
  missing(): readonly string[] {
    return this.#lost
      .filter((one) => !one.readOnly)
      .filter((one) => !leafRoles(one.layout).every((leaf) => this.#held.has(`${rankOf(one)} ${leaf}`)))
      .map(({ name, rank }) => tensorKey({ name, ...(rank && { rank }) }));
  }
}

/** What is wrong where a replica is none. */
export function replicaError({ tensor, of, tied }: Replica, index: number): IsologitError {
  const at = { tensor, index };
  if (tied === true) return tiedApart(tensor, of, `element ${index} is another`);
  return new IsologitError("REPLICA_DIFFERS", `it is not ${of}, of which it must be a copy`, at);
}

/** Loaders differ in which of the two they take, so that neither can be called the model. */
function tiedApart(tensor: string, of: string, found: string): IsologitError {
  const message = `tie_word_embeddings is true, and ${tensor} is not ${of} (${found}): Transformers takes the stored head, vLLM and NVIDIA's code the token table`;
  const next = `set tie_word_embeddings to false to keep ${tensor}, or remove it to make ${of} the head`;
  return new IsologitError("REPLICA_DIFFERS", message, { tensor }, { next });
}

function rankOf({ rank }: Pick<Tensor, "rank">): string {
  return rank === undefined ? "" : tensorKey({ name: "", rank });
}

function refuseUncovered({ key, shape }: Role, moves: readonly Move[]): void {
  const covered = findCoverFault(moves, countOf(shape));
  if (covered.ok) return;
  const from = moves[0]?.of;
  const at = from === undefined || from === null ? {} : { tensor: from };
  if (covered.fault === "missing") {
    const message = `no rank holds element ${covered.at} of ${key}; a rank's file is missing`;
    throw new IsologitError("TENSOR_MISSING", message, at);
  }
  throw new IsologitError("TENSOR_UNKNOWN", `element ${covered.at} of ${key} is stored twice`, at);
}

/** @throws SHAPE_MISMATCH for the first, with the one number of the config that would explain them all */
function refuseMisfits(misfits: readonly ShapeMisfit[], model: Recognised): void {
  const [first] = misfits;
  if (first === undefined) return;
  const { tensor, asked } = first;
  const file = tensor.pieces[0]?.file;
  const causes = causesOf(model, misfits);
  const [cause, ...others] = causes;
  const found = `it is [${tensor.shape.join(", ")}] in the file; this config asks for [${asked.join(", ")}]`;
  throw new IsologitError(
    "SHAPE_MISMATCH",
    found + causeText(causes),
    { tensor: tensor.name, ...(file !== undefined && { file }) },
    cause === undefined || others.length > 0
      ? {}
      : { next: `set ${cause.key} to ${cause.fits} in the config, if that is how the model was trained` },
  );
}

/** What is there under a name that no config asks for may be what is missed. */
function lacking(unknown: readonly string[]): string {
  return unknown.length === 0
    ? "which the weights lack"
    : `which the weights lack; they hold ${shownOf(unknown)} instead`;
}

function absent(
  code: "TENSOR_MISSING" | "TENSOR_UNKNOWN",
  before: string,
  names: readonly string[],
  after: string,
) {
  return new IsologitError(code, `${before} ${shownOf(names)}, ${after}`, { tensor: names[0]! });
}

function shownOf(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
}
