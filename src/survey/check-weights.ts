/** Weights against config: what is missing, what no config asks for, what has another shape, and why it may. */
import type { Finding } from "../api/reports.ts";
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { type Shape, sameShape } from "../core/dtype.ts";
import { shapeOf } from "../core/layout.ts";
import type { Family, Settings } from "../families/define.ts";
import { type Matched, matchRoles, modelOf, type Recognised, type Role } from "../families/match.ts";
import { readableBy } from "../families/stored.ts";
import { finding, findingOf } from "./findings.ts";

/**
 * @param companions names of stored scales, which are no roles
 * @param address    what findings call a checkpoint of which no file is at fault
 */
export function checkWeights(
  checkpoint: Checkpoint,
  families: readonly Family[],
  companions: ReadonlySet<string>,
  address: string,
): readonly Finding[] {
  try {
    return asides(matchRoles(checkpoint, families, companions));
  } catch (error) {
    const first = findingOf(error, address);
    const every = everyFault(checkpoint, families, companions);
    return every.length === 0 ? [first] : every;
  }
}

/** What a sound checkpoint carries beside the model. */
function asides({ dropped, notes, checkpoint }: Matched): readonly Finding[] {
  const file = checkpoint.store.url;
  return [
    ...dropped.map(({ why, names }) =>
      finding("left-out", "note", { file }, `${names.length} entries are no part of the model: ${why}`),
    ),
    ...notes.map((note) => finding("inferred", "note", { file }, note)),
  ];
}

/** All names and shapes that do not fit, where `matchRoles` stops at the first. Empty where it is not that simple. */
function everyFault(
  checkpoint: Checkpoint,
  families: readonly Family[],
  companions: ReadonlySet<string>,
): readonly Finding[] {
  const model = understood(checkpoint, families);
  if (model === null || model.dialect.ranked === true) return [];
  const tensors = new Map(checkpoint.tensors.map((tensor) => [tensor.name, tensor]));
  const left = new Set([...tensors.keys()].filter((name) => !companions.has(name)));
  for (const name of left) if (model.dialect.drop.some(({ match }) => match.test(name))) left.delete(name);
  const findings: Finding[] = [];
  const misfits: Misfit[] = [];
  for (const { name, also, readOnly, layout } of readableBy(model, model.dialect, model.shards)) {
    const tensor = [name, ...also].map((one) => tensors.get(one)).find((one) => one !== undefined);
    if (tensor === undefined) {
      const at = { file: checkpoint.store.url, tensor: name };
      if (!readOnly) findings.push(finding("tensor-missing", "error", at, "the config asks for it"));
      continue;
    }
    left.delete(tensor.name);
    if (sameShape(tensor.shape, shapeOf(layout))) continue;
    const role = layout.op === "leaf" ? model.roles.get(layout.of) : undefined;
    misfits.push({ tensor, asked: shapeOf(layout), ...(role !== undefined && { role }) });
  }
  const cause = misfits.length === 0 ? "" : likelyCause(model, misfits);
  for (const { tensor, asked } of misfits) {
    const message = `it is [${tensor.shape.join(", ")}]; the config asks for [${asked.join(", ")}]${cause}`;
    findings.push(finding("shape-mismatch", "error", placeOf(tensor), message));
  }
  for (const name of left) {
    const message = "the config has no place for it";
    findings.push(finding("tensor-unknown", "error", placeOf(tensors.get(name)!), message));
  }
  return findings;
}

/** Null where not even the config can be understood. */
function understood(checkpoint: Checkpoint, families: readonly Family[]): Recognised | null {
  try {
    return modelOf(checkpoint, families);
  } catch {
    return null; // `matchRoles` met the same fault, and it was reported
  }
}

interface Misfit {
  readonly tensor: Tensor;
  readonly asked: Shape;
  /** what it is, where a tensor is one role and no more */
  readonly role?: Role;
}

/** Larger than any number of heads, groups or experts; widths are tried as they are found in shapes. */
const MOST_TRIED = 1024;

/** The one number of the config with another value of which every such tensor would fit. */
function likelyCause({ family, dialect, settings }: Recognised, misfits: readonly Misfit[]): string {
  if (misfits.some(({ role }) => role === undefined)) return "";
  const tried = new Set(Array.from({ length: MOST_TRIED }, (_, i) => i + 1));
  for (const { tensor } of misfits.slice(0, 3)) for (const size of tensor.shape) tried.add(size);
  const fits = (changed: Settings) => {
    try {
      const dims = family.dims(changed);
      return misfits.every(({ tensor, role }) => sameShape(tensor.shape, role!.spec.shape(dims)));
    } catch {
      return false; // numbers that make no model
    }
  };
  const causes = Object.entries(settings).flatMap(([key, value]) => {
    if (typeof value !== "number") return [];
    const fitting = [...tried].filter((other) => other !== value && fits({ ...settings, [key]: other }));
    return fitting.length === 1
      ? [`${dialect.keyOf?.(key) ?? key} ${value} where the weights fit ${fitting[0]}`]
      : [];
  });
  return causes.length === 0 ? "" : `. Likely cause: the config says ${causes.join(", or ")}`;
}

function placeOf({ name, pieces }: Tensor) {
  const [piece] = pieces;
  return { file: piece?.file ?? "", tensor: name, ...(piece !== undefined && { offset: piece.offset }) };
}
