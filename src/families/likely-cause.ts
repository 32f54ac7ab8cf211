/** Likely causes of wrong shapes: often one number in the config is wrong. */
import type { Tensor } from "../core/checkpoint.ts";
import { type Shape, sameShape } from "../core/dtype.ts";
import { type Layout, shapeOf } from "../core/mapping/layout.ts";
import type { RecognisedModel, Role } from "./model.ts";
import type { Settings } from "./structure.ts";

/** A stored tensor whose shape differs from the shape that the config asks for. */
export interface ShapeMisfit {
  readonly tensor: Tensor;
  readonly asked: Shape;
  /** the role that the tensor holds, if it holds exactly one role */
  readonly role?: Role;
}

export function misfitOf(tensor: Tensor, layout: Layout, { roles }: RecognisedModel): ShapeMisfit {
  const role = layout.op === "leaf" ? roles.get(layout.of) : undefined;
  return { tensor, asked: shapeOf(layout), ...(role !== undefined && { role }) };
}

/** A key of the config, its value, and the value with which every misfit would fit. */
interface Cause {
  readonly key: string;
  readonly value: number;
  readonly fits: number;
}

/** Larger than the number of heads, groups or experts of any model. Widths are tried as they occur in shapes. */
const MOST_TRIED = 1024;

/** The numbers of the config that explain all misfits: for each, exactly one other value makes every misfit fit. */
export function causesOf(
  { family, dialect, settings }: RecognisedModel,
  misfits: readonly ShapeMisfit[],
): readonly Cause[] {
  if (misfits.length === 0 || misfits.some(({ role }) => role === undefined)) return [];
  const tried = new Set(Array.from({ length: MOST_TRIED }, (_, i) => i + 1));
  for (const { tensor } of misfits.slice(0, 3)) for (const size of tensor.shape) tried.add(size);
  const fits = (changed: Settings) => {
    try {
      const dims = family.dims(changed);
      return misfits.every(({ tensor, role }) => sameShape(tensor.shape, role!.spec.shape(dims)));
    } catch {
      return false; // these numbers describe no model
    }
  };
  return Object.entries(settings).flatMap(([key, value]) => {
    if (typeof value !== "number") return [];
    const fitting = [...tried].filter((other) => other !== value && fits({ ...settings, [key]: other }));
    return fitting.length === 1 ? [{ key: dialect.keyOf?.(key) ?? key, value, fits: fitting[0]! }] : [];
  });
}

/** The end of the error message; empty if no cause is known. */
export function causeText(causes: readonly Cause[]): string {
  const each = causes.map(({ key, value, fits }) => `${key} ${value} where the weights fit ${fits}`);
  return each.length === 0 ? "" : `. Likely cause: the config says ${each.join(", or ")}`;
}
