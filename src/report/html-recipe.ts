/** The section of an automatic recipe: the curve of size against divergence, and the sensitivity of each layer. */
import { formatBytes, formatMeasure, formatQuantity } from "../core/figures.ts";
import type { RecipeSearch } from "../index.ts";
import { chartOf } from "./chart.ts";
import { htmlTable, numberCell } from "./html-tables.ts";
import { type Markup, markup } from "./markup.ts";

export function recipeSection({ layers, points, chosen, limits, tokens, readings }: RecipeSearch): Markup {
  const { cast, bitsPerWeight, klMean } = points[chosen]!;
  const chart = chartOf({
    title: "Mean KL divergence of each recipe, nats, logarithmic",
    axis: "bits a weight",
    labels: points.map((point) => point.bitsPerWeight.toFixed(2)),
    series: [{ as: "line", name: "KL", values: points.map((point) => point.klMean) }],
    ...(limits.klMean !== undefined && { limit: { value: limits.klMean, text: "limit" } }),
    mark: { place: chosen, text: "chosen" },
  });
  const rows = layers.map(
    ({ layer, kind, bytesSaved, klMean: alone }) =>
      markup`<tr>${numberCell("layer", layer)}<td>${kind}</td><td>${formatBytes(bytesSaved)}</td>${numberCell("KL of its cast", alone)}<td>${cast.includes(layer) ? "cast" : "kept"}</td></tr>\n`,
  );
  return markup`<h2>Automatic recipe</h2>
<p>${`${cast.length} of ${formatQuantity(layers.length, "layer")} are cast: ${bitsPerWeight.toFixed(3)} bits a weight at a mean KL divergence of ${formatMeasure(klMean)}. Measured on ${formatQuantity(tokens, "token")}; the weights were read ${formatQuantity(readings, "time")}.`}</p>
<figure><div class="wide">${chart}</div><figcaption>Each dot is a recipe that was run: from nothing cast, left, to all projections cast, right. KL divergence from the source, in nats.</figcaption></figure>
<details><summary>Sensitivity of each layer</summary>${htmlTable(["layer", "kind", "saves", "KL of its cast", "outcome"], rows, [0, 2, 3], "")}</details>`;
}
