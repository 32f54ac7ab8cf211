/** The shape of a model, as far as pruning changes it. */
import type { Model } from "../../families/model.ts";
import type { Dims } from "../../families/structure.ts";
import type { AskedShape } from "../select.ts";

/** How many layers of each kind the main stack has, and how wide they are. A width is 0 where no layer uses it. */
export interface PrunedShape {
  readonly counts: Readonly<Record<string, number>>;
  readonly ffn: number;
  readonly mambaHeads: number;
  readonly heads: number;
  readonly hidden: number;
}

const WIDTHS = ["ffn", "mambaHeads", "heads", "hidden"] as const;

/** The shape that a model has. */
export function wholeShape({ family, settings, layers }: Model): PrunedShape {
  const count = (kind: string) => layers.filter((one) => one.stack === "main" && one.kind === kind).length;
  const width = (name: string) => (typeof settings[name] === "number" ? settings[name] : 0);
  return {
    counts: Object.fromEntries(family.kinds.map((kind) => [kind, count(kind)])),
    ...{ ffn: width("ffn"), mambaHeads: width("mambaHeads"), heads: width("heads"), hidden: width("hidden") },
  };
}

/** The shape of a model of which a part was asked for. */
export function shapeAsked(model: Model, { widths, counts, drop }: AskedShape): PrunedShape {
  const whole = wholeShape(model);
  const left = { ...whole.counts, ...counts };
  for (const layer of model.layers)
    if (layer.stack === "main" && drop?.includes(layer.index)) left[layer.kind] = left[layer.kind]! - 1;
  return { ...whole, ...widths, counts: left };
}

/** The dims of a model with the widths of a shape. */
export function dimsOfShape({ family, settings }: Model, shape: PrunedShape): Dims {
  const used = WIDTHS.filter((name) => name in settings);
  return family.dims({ ...settings, ...Object.fromEntries(used.map((name) => [name, shape[name]])) });
}
