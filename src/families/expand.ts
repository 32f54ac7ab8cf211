/** The tensors that a dialect stores for a model: its rules applied to all layers, experts and ranks. */
import { type Rank, tensorKey } from "../core/checkpoint.ts";
import { countOf, type Shape } from "../core/dtype.ts";
import { type Layout, leaf, shapeOf } from "../core/mapping/layout.ts";
import type { Dialect, Rule, ShardPosition } from "./dialect.ts";
import type { ElementFactor, MatchedModel, Model } from "./model.ts";
import { type Dims, type Layer, type Parallelism, type RoleSpec, roleKey } from "./structure.ts";

/** One tensor that a dialect expects: its name, other names that are read, and its layout. */
export interface ExpectedTensor extends Pick<Rule, "onlyDtype" | "keepsDtype" | "stores"> {
  readonly name: string;
  readonly also: readonly string[];
  readonly rank?: Rank;
  /** read but never written, because other tensors hold the same roles */
  readonly readOnly: boolean;
  /** it must equal another tensor that holds the same roles */
  readonly copy: boolean;
  /** values are multiplied where they are stored, by these numbers; absent: they are stored as they are */
  readonly times?: readonly ElementFactor[];
  readonly layout: Layout;
}

/** Every tensor that `dialect` writes for this model, in the execution order of its roles; the same tensor of all ranks is adjacent. */
export function tensorsWritten(
  model: Model,
  dialect: Dialect,
  shards: Parallelism = dialect.cut(model, { tp: 1, pp: 1 }),
): readonly ExpectedTensor[] {
  const written = tensorsRead(model, dialect, shards).filter(({ readOnly }) => !readOnly);
  return inOrder(written, model);
}

/** Every tensor of its model that a checkpoint holds, under its stored name, in the same order. */
export function tensorsHeld(matched: MatchedModel): readonly ExpectedTensor[] {
  const { dialect, parallelism, tensors } = matched;
  const held = tensorsRead(matched, dialect, parallelism).flatMap((expected) => {
    const { rank } = expected;
    const name = [expected.name, ...expected.also].find((spelling) =>
      tensors.has(tensorKey({ name: spelling, ...(rank && { rank }) })),
    );
    return name === undefined ? [] : [{ ...expected, name }];
  });
  return inOrder(held, matched);
}

function inOrder(tensors: readonly ExpectedTensor[], { roles }: Model): readonly ExpectedTensor[] {
  const order = new Map([...roles.keys()].map((key, i) => [key, i]));
  const first = ({ layout }: ExpectedTensor) => Math.min(...leafRoles(layout).map((key) => order.get(key)!));
  return tensors
    .map((tensor) => ({ tensor, position: first(tensor) }))
    .sort((a, b) => a.position - b.position)
    .map(({ tensor }) => tensor);
}

/** A name as the dialect writes it, given either that name or the one that libraries use. */
export function publishedName(name: string, { renamed }: Dialect): string {
  if (renamed === undefined || !name.startsWith(renamed.loaded)) return name;
  return renamed.stored + name.slice(renamed.loaded.length);
}

/** Every tensor that is written or only read, in the order of ranks and rules. */
export function tensorsRead(model: Model, dialect: Dialect, shards: Parallelism): readonly ExpectedTensor[] {
  if (dialect.ranked !== true) return tensorsOn(model, dialect, shards, undefined);
  const stored: ExpectedTensor[] = [];
  for (let pp = 0; pp < shards.stages.length; pp++) {
    for (let ep = 0; ep < shards.ep; ep++) {
      for (let tp = 0; tp < shards.tp; tp++)
        stored.push(...tensorsOn(model, dialect, shards, { tp, pp, ep }));
    }
  }
  return stored;
}

/** The tensors of one rank; without a rank, of the whole model. */
function tensorsOn(
  model: Model,
  dialect: Dialect,
  shards: Parallelism,
  rank: Rank | undefined,
): ExpectedTensor[] {
  const { family, dims, layers, roles } = model;
  const experts = family.forward.experts(dims);
  const { tp, ep } = rank ?? { tp: 0, ep: 0 };
  const position: ShardPosition = {
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
      const layout = rule.is(role, dims, position);
      const times = factorsOf(rule, dims, shapeOf(layout));
      stored.push({
        name: name!,
        also,
        ...(rank !== undefined && { rank }),
        readOnly: rule.readOnly === true,
        copy: rule.copy === true,
        ...(rule.onlyDtype !== undefined && { onlyDtype: rule.onlyDtype }),
        ...(times !== undefined && { onlyDtype: "F32", times }),
        ...(rule.keepsDtype !== undefined && { keepsDtype: rule.keepsDtype }),
        ...(rule.stores !== undefined && { stores: rule.stores }),
        layout,
      });
    } catch (error) {
      if (!(error instanceof AbsentRole)) throw error; // the model does not have the role, so the tensor does not exist
    }
  };
  for (const rule of dialect.rules) {
    if (rule.when?.(dims) === false) continue;
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

/** The given names, and the forms of them that libraries use. */
function namesOf(names: readonly string[], { renamed }: Dialect): readonly string[] {
  if (renamed === undefined) return names;
  const { stored, loaded } = renamed;
  const others = names.filter((name) => name.startsWith(stored));
  return [...names, ...others.map((name) => loaded + name.slice(stored.length))];
}

/** The numbers of a rule, for runs of elements; undefined if values are stored as they are. */
function factorsOf(rule: Rule, dims: Dims, shape: Shape): readonly ElementFactor[] | undefined {
  const factors = rule.times?.(dims);
  if (factors === undefined) return undefined;
  const [rows = 1] = shape;
  const inRow = countOf(shape) / rows;
  const runs = typeof factors === "number" ? [{ rows, factor: factors }] : factors;
  let hi = 0;
  return runs.map(({ rows: count, factor }) => {
    const lo = hi;
    hi += count * inRow;
    return { lo, hi, factor };
  });
}

class AbsentRole extends Error {}

interface Place {
  readonly layer: Layer;
  /** prefix of the layer's names, with the numbers of its rank */
  readonly prefix: string;
}

/** Whether the stage of this rank holds a tensor outside the layers. */
function isHeld({ stage }: Rule, { stages }: Parallelism, rank: Rank | undefined): boolean {
  const last = stages.length - 1;
  if (stage === "lastOfSeveral") return rank?.pp === last && last > 0;
  if (stage === "mtp") return rank?.pp === last && last > 0 && stages[last]!.mtp > 0;
  return rank === undefined || stage === undefined || rank.pp === (stage === "first" ? 0 : last);
}

/** The prefix of a layer's names; null if the layer is in another pipeline stage. */
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
  const isOfStep = rule.mtp === "first" || rule.mtp === "last";
  const prefix = isOfStep ? (stacks.step ?? stacks.mtp) : stacks[layer.stack];
  const outer = Math.floor(index / layer.of);
  return {
    layer,
    prefix: prefix!
      .replace("{layer}", String(index))
      .replace("{outer}", String(outer))
      .replace("{after}", String((layer.after ?? 0) + outer))
      .replace("{inner}", String(layer.inner)),
  };
}

/** Whether a layer has the role or tensor. */
export function ruleApplies(what: Pick<RoleSpec | Rule, "on" | "mtp">, layer: Layer): boolean {
  if (what.mtp === "never" && layer.stack === "mtp") return false;
  if (what.mtp === "first" || what.mtp === "last") {
    if (layer.stack !== "mtp" || layer.inner !== (what.mtp === "first" ? 0 : layer.of - 1)) return false;
  }
  return what.on === "every" || what.on?.includes(layer.kind) === true;
}

/** The roles that a layout reads. */
export function leafRoles(layout: Layout): readonly string[] {
  if (layout.op === "leaf") return [layout.of];
  return layout.op === "concat" ? layout.parts.flatMap(leafRoles) : leafRoles(layout.of);
}
