/** The search for an automatic recipe as text: what was chosen, and the curve of size against divergence. */
import { formatBytes, formatMeasure, formatQuantity } from "../core/figures.ts";
import type { RecipeSearch } from "../index.ts";
import { tableWithHead, type View } from "./render.ts";

interface WithSearch {
  readonly search?: RecipeSearch;
}

/** A row for a table of facts. */
export function searchRow({ search }: WithSearch): [label: string, value: string | null] {
  if (search === undefined) return ["recipe", null];
  const { layers, chosen, points, backend, tokens, readings } = search;
  const { cast, bitsPerWeight, klMean } = points[chosen]!;
  return [
    "recipe",
    `auto: ${cast.length} of ${formatQuantity(layers.length, "layer")} cast, ${bitsPerWeight.toFixed(3)} bits a weight, KL ${formatMeasure(klMean)}; from ${formatQuantity(tokens, "token")} on ${backend}, weights read ${formatQuantity(readings, "time")}`,
  ];
}

/** A row for each layer that can be cast, and a row for each point of the curve. */
export function searchTables({ layers, points, chosen }: RecipeSearch, view: View): string[] {
  const { cast } = points[chosen]!;
  const layerRows = layers.map(({ layer, kind, bytesSaved, klMean }) => [
    ...[`${layer}`, kind, formatBytes(bytesSaved), formatMeasure(klMean)],
    cast.includes(layer) ? "cast" : "",
  ]);
  const pointRows = points.map(({ cast: { length }, bytes, bitsPerWeight, klMean, top1 }, i) => [
    ...[
      `${length}`,
      formatBytes(bytes),
      bitsPerWeight.toFixed(3),
      formatMeasure(klMean),
      formatMeasure(top1),
    ],
    i === chosen ? "chosen" : "",
  ]);
  return [
    ...tableWithHead(view, ["layer", "kind", "saves", "KL of its cast", ""], layerRows, "rlrrl"),
    "",
    ...tableWithHead(view, ["layers cast", "bytes", "bits", "KL", "top-1", ""], pointRows, "rrrrrl"),
  ];
}
