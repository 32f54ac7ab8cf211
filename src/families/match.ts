/** A checkpoint as a model: every stored tensor accounted for by a rule, every role by a tensor, every shape agreed. */
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { countOf, type Shape, sameShape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { cover, invert, type Layout, leaf, type Move, movesOf, shapeOf } from "../core/layout.ts";
import {
  type Dialect,
  type Dims,
  type Family,
  type Layer,
  type RoleSpec,
  type Rule,
  roleKey,
  type Settings,
} from "./define.ts";

/** One role of one model. */
export interface Role {
  readonly key: string;
  readonly spec: RoleSpec;
  readonly layer: Layer | null;
  readonly shape: Shape;
}

/** One tensor as a dialect stores it: its name, the others it may be read by, and what it is. */
export interface Stored {
  readonly name: string;
  readonly also: readonly string[];
  readonly layout: Layout;
}

/** What a family makes of a config: all that exists before a weight file is opened. */
export interface Model {
  readonly family: Family;
  readonly settings: Settings;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
  /** in execution order */
  readonly roles: ReadonlyMap<string, Role>;
}

/** A model together with where its roles lie in one checkpoint. */
export interface Matched extends Model {
  readonly checkpoint: Checkpoint;
  readonly dialect: Dialect;
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** each role as moves from stored tensors */
  readonly origin: ReadonlyMap<string, readonly Move[]>;
  /** the roles that a stored tensor holds */
  readonly holds: ReadonlyMap<string, readonly string[]>;
}

export function modelOf(checkpoint: Checkpoint, families: readonly Family[]): Model & { dialect: Dialect } {
  const family = families.find((f) => f.claims(checkpoint.config));
  if (family === undefined) {
    const type = JSON.stringify(checkpoint.config.model_type ?? null);
    throw new IsologitError("FAMILY_UNKNOWN", `model_type is ${type}, which no known family claims`, {
      file: "config.json",
    });
  }
  const dialect = dialectOf(family, checkpoint.dialect);
  const settings = dialect.settings(checkpoint.config);
  const dims = family.dims(settings);
  const layers = family.layers(settings);
  return { family, dialect, settings, dims, layers, roles: rolesOf(family, dims, layers) };
}

export function dialectOf(family: Family, id: string): Dialect {
  const dialect = family.dialects.find((d) => d.id === id);
  if (dialect === undefined) throw new IsologitError("UNSUPPORTED", `${family.id} has no dialect ${id}`);
  return dialect;
}

/** Execution order: what comes before the layers, the layers, what comes after; prediction layers last. */
function rolesOf(family: Family, d: Dims, layers: readonly Layer[]): ReadonlyMap<string, Role> {
  const roles = new Map<string, Role>();
  const add = (spec: RoleSpec, layer: Layer | null) => {
    if (spec.when?.(d) === false || (layer !== null && !applies(spec, layer))) return;
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

function applies(what: Pick<RoleSpec | Rule, "on" | "mtp">, layer: Layer): boolean {
  if (
    what.mtp !== undefined &&
    (layer.stack !== "mtp" || layer.inner !== (what.mtp === "first" ? 0 : layer.of - 1))
  ) {
    return false;
  }
  return what.on === "every" || what.on?.includes(layer.kind) === true;
}

function expertsOf(spec: RoleSpec, d: Dims): readonly (number | null)[] {
  return spec.experts === undefined ? [null] : Array.from({ length: spec.experts(d) }, (_, i) => i);
}

/** Every tensor that `dialect` stores for this model, in execution order of what it holds. */
export function storedBy(model: Model, dialect: Dialect): readonly Stored[] {
  const { family, dims, layers, roles } = model;
  const stored: Stored[] = [];
  const add = (rule: Rule, layer: Layer | null, prefix: string, expert: number | null) => {
    const spell = (name: string) => prefix + name.replace("{expert}", String(expert));
    const role = (name: string) => {
      const perExpert = family.roles.find((r) => r.role === name)?.experts !== undefined;
      const found = roles.get(roleKey(name, layer, perExpert ? expert : null));
      if (found === undefined) throw new AbsentRole();
      return leaf(found.key, found.shape);
    };
    try {
      stored.push({
        name: spell(rule.name),
        also: (rule.also ?? []).map(spell),
        layout: rule.is(role, dims),
      });
    } catch (error) {
      if (!(error instanceof AbsentRole)) throw error; // this model has no such role, so no such tensor
    }
  };
  for (const rule of dialect.rules) {
    if (rule.on === undefined) add(rule, null, "", null);
    for (const layer of layers) {
      if (!applies(rule, layer)) continue;
      const prefix = dialect.stacks[layer.stack].replace("{layer}", String(layer.index));
      const count = rule.name.includes("{expert}") ? dims.experts! : 1;
      for (let expert = 0; expert < count; expert++) add(rule, layer, prefix, expert);
    }
  }
  const order = new Map([...roles.keys()].map((key, i) => [key, i]));
  const first = ({ layout }: Stored) => Math.min(...leavesOf(layout).map((key) => order.get(key)!));
  return stored.sort((a, b) => first(a) - first(b));
}

class AbsentRole extends Error {}

/** The roles an expression draws on. */
export function leavesOf(layout: Layout): readonly string[] {
  if (layout.op === "leaf") return [layout.of];
  return layout.op === "concat" ? layout.parts.flatMap(leavesOf) : leavesOf(layout.of);
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
  const tensors = new Map(checkpoint.tensors.map((tensor) => [tensor.name, tensor]));
  const origin = new Map<string, Move[]>();
  const holds = new Map<string, readonly string[]>();
  const missing: string[] = [];
  for (const { name, also, layout } of storedBy(model, model.dialect)) {
    const tensor = tensors.get([name, ...also].find((n) => tensors.has(n)) ?? name);
    if (tensor === undefined) {
      missing.push(name);
      continue;
    }
    refuseShape(tensor, shapeOf(layout));
    holds.set(tensor.name, leavesOf(layout));
    for (const [role, moves] of invert(movesOf(layout), tensor.name)) {
      origin.set(role, [...(origin.get(role) ?? []), ...moves]);
    }
  }
  const unknown = checkpoint.tensors.filter(({ name }) => !holds.has(name) && !companions.has(name));
  if (missing.length > 0)
    throw absent("TENSOR_MISSING", "the config asks for", missing, "which the weights lack");
  if (unknown.length > 0) {
    throw absent(
      "TENSOR_UNKNOWN",
      "the weights hold",
      unknown.map((t) => t.name),
      "for which the config has no place",
    );
  }
  for (const role of model.roles.values()) {
    const covered = cover(origin.get(role.key) ?? [], countOf(role.shape));
    if (!covered.ok) {
      throw new IsologitError("INTERNAL", `role ${role.key} is ${covered.fault} at element ${covered.at}`);
    }
  }
  return { ...model, checkpoint, tensors, origin, holds };
}

function refuseShape(tensor: Tensor, expected: Shape): void {
  if (sameShape(tensor.shape, expected)) return;
  const file = tensor.pieces[0]?.file;
  throw new IsologitError(
    "SHAPE_MISMATCH",
    `it is [${tensor.shape.join(", ")}] in the file; this config asks for [${expected.join(", ")}]`,
    { tensor: tensor.name, ...(file !== undefined && { file }) },
  );
}

function absent(
  code: "TENSOR_MISSING" | "TENSOR_UNKNOWN",
  before: string,
  names: readonly string[],
  after: string,
) {
  const shown = names.slice(0, 3).join(", ");
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return new IsologitError(code, `${before} ${shown}${more}, ${after}`, { tensor: names[0]! });
}
