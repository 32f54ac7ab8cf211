/** What a dialect stores of a model, tensor by tensor: its rules carried out over layers, experts and ranks. */
import { type Rank, tensorKey } from "../core/checkpoint.ts";
import { type Layout, leaf } from "../core/mapping/layout.ts";
import type { Dialect, Rule, ShardPosition } from "./dialect.ts";
import type { Matched, Model } from "./model.ts";
import { type Layer, type Parallelism, type RoleSpec, roleKey } from "./structure.ts";

/** One tensor as a dialect stores it: its name, the others it may be read by, and what it is. */
export interface ExpectedTensor {
  readonly name: string;
  readonly also: readonly string[];
  readonly rank?: Rank;
  /** never written: others hold the same */
  readonly readOnly: boolean;
  readonly layout: Layout;
}

/** Every tensor that `dialect` writes for this model, in execution order of what it holds; ranks side by side. */
export function tensorsWritten(
  model: Model,
  dialect: Dialect,
  shards: Parallelism = dialect.cut(model, { tp: 1, pp: 1 }),
): readonly ExpectedTensor[] {
  const written = tensorsRead(model, dialect, shards).filter(({ readOnly }) => !readOnly);
  return inOrder(written, model);
}

/** Every tensor that a checkpoint holds of its model, under the name that it has there, in the same order. */
export function tensorsHeld(matched: Matched): readonly ExpectedTensor[] {
  const { dialect, parallelism, tensors } = matched;
  const held = tensorsRead(matched, dialect, parallelism).flatMap((one) => {
    const { rank } = one;
    const name = [one.name, ...one.also].find((other) =>
      tensors.has(tensorKey({ name: other, ...(rank && { rank }) })),
    );
    return name === undefined ? [] : [{ ...one, name }];
  });
  return inOrder(held, matched);
}

function inOrder(stored: readonly ExpectedTensor[], { roles }: Model): readonly ExpectedTensor[] {
  const order = new Map([...roles.keys()].map((key, i) => [key, i]));
  const first = ({ layout }: ExpectedTensor) => Math.min(...leafRoles(layout).map((key) => order.get(key)!));
  return stored
    .map((one) => ({ one, at: first(one) }))
    .sort((a, b) => a.at - b.at)
    .map(({ one }) => one);
}

/** A name as the dialect writes it, where a library spells it otherwise. */
export function publishedName(name: string, { renamed }: Dialect): string {
  if (renamed === undefined || !name.startsWith(renamed.loaded)) return name;
  return renamed.stored + name.slice(renamed.loaded.length);
}

/** As `storedBy`, with what is only read, in the order of ranks and rules. */
export function tensorsRead(model: Model, dialect: Dialect, shards: Parallelism): readonly ExpectedTensor[] {
  if (dialect.ranked !== true) return storedOn(model, dialect, shards, undefined);
  const stored: ExpectedTensor[] = [];
  for (let pp = 0; pp < shards.stages.length; pp++) {
    for (let ep = 0; ep < shards.ep; ep++) {
      for (let tp = 0; tp < shards.tp; tp++) stored.push(...storedOn(model, dialect, shards, { tp, pp, ep }));
    }
  }
  return stored;
}

/** The tensors of one rank; of the whole model without one. */
function storedOn(
  model: Model,
  dialect: Dialect,
  shards: Parallelism,
  rank: Rank | undefined,
): ExpectedTensor[] {
  const { family, dims, layers, roles } = model;
  const experts = family.forward.experts(dims);
  const { tp, ep } = rank ?? { tp: 0, ep: 0 };
  const slot: ShardPosition = {
    tp,
    of: rank === undefined ? 1 : shards.tp,
    expertTp: tp % shards.expertTp,
    expertOf: rank === undefined ? 1 : shards.expertTp,
    rows: shards.rows,
  };
  const stored: ExpectedTensor[] = [];
  const add = (rule: Rule, place: Place | null, local: number | null) => {
    const expert = local === null ? null : ep * (experts / shards.ep) + local;
    const spell = (name: string) => (place?.prefix ?? "") + name.replace("{expert}", String(local));
    const role = (name: string, other?: number) => {
      const perExpert = family.roles.find((r) => r.role === name)?.experts !== undefined;
      const found = roles.get(roleKey(name, place?.layer ?? null, perExpert ? (other ?? expert) : null));
      if (found === undefined) throw new AbsentRole();
      return leaf(found.key, found.shape);
    };
    const [name, ...also] = namesOf([rule.name, ...(rule.also ?? [])].map(spell), dialect);
    try {
      stored.push({
        name: name!,
        also,
        ...(rank !== undefined && { rank }),
        readOnly: rule.readOnly === true,
        layout: rule.is(role, dims, slot),
      });
    } catch (error) {
      if (!(error instanceof AbsentRole)) throw error; // this model has no such role, so no such tensor
    }
  };
  for (const rule of dialect.rules) {
    if (rule.on === undefined && isHeld(rule, shards, rank)) add(rule, null, null);
    for (const layer of layers) {
      if (!ruleApplies(rule, layer)) continue;
      const place = placeOf(rule, layer, dialect, shards, rank?.pp ?? 0);
      if (place === null) continue;
      const count = rule.name.includes("{expert}") ? experts / shards.ep : 0;
      if (count === 0) add(rule, place, null);
      for (let expert = 0; expert < count; expert++) add(rule, place, expert);
    }
  }
  return stored;
}

/** The names given, and those of them that libraries spell otherwise. */
function namesOf(names: readonly string[], { renamed }: Dialect): readonly string[] {
  if (renamed === undefined) return names;
  const { stored, loaded } = renamed;
  const others = names.filter((name) => name.startsWith(stored));
  return [...names, ...others.map((name) => loaded + name.slice(stored.length))];
}

class AbsentRole extends Error {}

interface Place {
  readonly layer: Layer;
  /** of the layer's names, by the numbers that its rank gives it */
  readonly prefix: string;
}

/** Does this rank's stage hold what lies outside the layers? */
function isHeld({ stage }: Rule, { stages }: Parallelism, rank: Rank | undefined): boolean {
  const last = stages.length - 1;
  if (stage === "mtp") return rank?.pp === last && last > 0 && stages[last]!.mtp > 0;
  return rank === undefined || stage === undefined || rank.pp === (stage === "first" ? 0 : last);
}

/** Null for a layer of another stage. */
function placeOf(
  rule: Rule,
  layer: Layer,
  { stacks, ranked }: Dialect,
  { stages }: Parallelism,
  pp: number,
): Place | null {
  const before = ranked ? stages.slice(0, pp).reduce((sum, stage) => sum + stage[layer.stack], 0) : 0;
  const index = layer.index - before;
  if (ranked && (index < 0 || index >= stages[pp]![layer.stack])) return null;
  const prefix = rule.mtp === undefined ? stacks[layer.stack] : (stacks.step ?? stacks.mtp);
  return {
    layer,
    prefix: prefix
      .replace("{layer}", String(index))
      .replace("{outer}", String(Math.floor(index / layer.of)))
      .replace("{inner}", String(layer.inner)),
  };
}

export function ruleApplies(what: Pick<RoleSpec | Rule, "on" | "mtp">, layer: Layer): boolean {
  if (
    what.mtp !== undefined &&
    (layer.stack !== "mtp" || layer.inner !== (what.mtp === "first" ? 0 : layer.of - 1))
  ) {
    return false;
  }
  return what.on === "every" || what.on?.includes(layer.kind) === true;
}

/** The roles an expression draws on. */
export function leafRoles(layout: Layout): readonly string[] {
  if (layout.op === "leaf") return [layout.of];
  return layout.op === "concat" ? layout.parts.flatMap(leafRoles) : leafRoles(layout.of);
}
