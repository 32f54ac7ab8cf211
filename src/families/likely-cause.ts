/** Why shapes do not fit a config: often one number in it is that of another model. */
import type { Tensor } from "../core/checkpoint.ts";
import { type Shape, sameShape } from "../core/dtype.ts";
import { type Layout, shapeOf } from "../core/mapping/layout.ts";
import type { Recognised, Role } from "./model.ts";
import type { Settings } from "./structure.ts";

/** A stored tensor that has not the shape that the config asks for. */
export interface ShapeMisfit {
  readonly tensor: Tensor;
  readonly asked: Shape;
  /** what it is, where a tensor is one role and no more */
  readonly role?: Role;
}

export function misfitOf(tensor: Tensor, layout: Layout, { roles }: Recognised): ShapeMisfit {
  const role = layout.op === "leaf" ? roles.get(layout.of) : undefined;
  return { tensor, asked: shapeOf(layout), ...(role !== undefined && { role }) };
}

/** A key of the config, what it says, and the other value that every misfit would fit. */
interface Cause {
  readonly key: string;
  readonly said: number;
  readonly fits: number;
}

/** Larger than any number of heads, groups or experts; widths are tried as they are found in shapes. */
const MOST_TRIED = 1024;

/** The numbers of the config with another value of which every misfit would fit; each alone would do. */
export function causesOf(
  { family, dialect, settings }: Recognised,
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
      return false; // numbers that make no model
    }
  };
  return Object.entries(settings).flatMap(([key, said]) => {
    if (typeof said !== "number") return [];
    const fitting = [...tried].filter((other) => other !== said && fits({ ...settings, [key]: other }));
    return fitting.length === 1 ? [{ key: dialect.keyOf?.(key) ?? key, said, fits: fitting[0]! }] : [];
  });
}

/** To be put behind what was found; empty where no cause is known. */
export function causeText(causes: readonly Cause[]): string {
  const each = causes.map(({ key, said, fits }) => `${key} ${said} where the weights fit ${fits}`);
  return each.length === 0 ? "" : `. Likely cause: the config says ${each.join(", or ")}`;
}
