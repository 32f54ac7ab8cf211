/** The sections of searches, for an automatic recipe or for a shape: size against divergence, and what was measured. */
import { formatBytes, formatCount, formatMeasure, formatPercent, formatQuantity } from "../core/figures.ts";
import type { RecipeSearch, ShapeSearch } from "../index.ts";
import { chartOf } from "./chart.ts";
import { htmlTable, numberCell } from "./html-tables.ts";
import { type Markup, markup } from "./markup.ts";

/** The curve of an automatic recipe, and the sensitivity of each layer or tensor. */
export function recipeSection(search: RecipeSearch): Markup {
  const { points, chosen, limits, tokens, readings } = search;
  const { bitsPerWeight, klMean } = points[chosen]!;
  const chart = chartOf({
    title: "Mean KL divergence of each recipe, nats, logarithmic",
    axis: "bits a weight",
    labels: points.map((point) => point.bitsPerWeight.toFixed(2)),
    series: [{ as: "line", name: "KL", values: points.map((point) => point.klMean) }],
    ...(limits.klMean !== undefined && { limit: { value: limits.klMean, text: "limit" } }),
    mark: { place: chosen, text: "chosen" },
  });
  const { outcome, caption, table } = search.tensors === undefined ? layerTexts(search) : typeTexts(search);
  return markup`<h2>Automatic recipe</h2>
<p>${`${outcome}: ${bitsPerWeight.toFixed(3)} bits a weight at a mean KL divergence of ${formatMeasure(klMean)}. Measured on ${formatQuantity(tokens, "token")}; the weights were read ${formatQuantity(readings, "time")}.`}</p>
<figure><div class="wide">${chart}</div><figcaption>${`Each dot is a recipe that was run: ${caption}. KL divergence from the source, in nats.`}</figcaption></figure>
${table}`;
}

interface SensitivityTexts {
  readonly outcome: string;
  readonly caption: string;
  readonly table: Markup;
}

function layerTexts({ layers, points, chosen }: RecipeSearch): SensitivityTexts {
  const { cast } = points[chosen]!;
  const rows = layers.map(
    ({ layer, kind, bytesSaved, klMean: alone }) =>
      markup`<tr>${numberCell("layer", layer)}<td>${kind}</td><td>${formatBytes(bytesSaved)}</td>${numberCell("KL of its cast", alone)}<td>${cast.includes(layer) ? "cast" : "kept"}</td></tr>\n`,
  );
  return {
    outcome: `${cast.length} of ${formatQuantity(layers.length, "layer")} are cast`,
    caption: "from nothing cast, left, to all projections cast, right",
    table: markup`<details><summary>Sensitivity of each layer</summary>${htmlTable(["layer", "kind", "saves", "KL of its cast", "outcome"], rows, [0, 2, 3], "")}</details>`,
  };
}

function typeTexts({ tensors = [] }: RecipeSearch): SensitivityTexts {
  const rows = tensors.map(
    ({ tensor, smallest, klMean, dtype }) =>
      markup`<tr><td>${tensor}</td><td>${smallest}</td>${numberCell("KL of its smallest type", klMean)}<td>${dtype}</td></tr>\n`,
  );
  const columns = ["tensor", "smallest type", "KL of its smallest type", "chosen"];
  return {
    outcome: `${formatQuantity(tensors.length, "tensor")} have chosen types`,
    caption: "from the largest, left, to the smallest, right",
    table: markup`<details><summary>Sensitivity of each tensor</summary>${htmlTable(columns, rows, [2], "")}</details>`,
  };
}

/** The size of each measured shape against its divergence. */
export function shapeSearchSection({ enumerated, fits, measured }: ShapeSearch): Markup {
  const [chosen] = measured as readonly [Measured, ...Measured[]];
  const bySize = [...measured].sort((a, b) => sizeOf(a) - sizeOf(b));
  const isBytes = chosen.memory !== null;
  const chart = chartOf({
    title: "Mean KL divergence of each measured shape, nats, logarithmic",
    axis: isBytes ? "memory" : "parameters, millions",
    labels: bySize.map(({ memory, parameters }) =>
      memory === null ? (parameters / 1e6).toPrecision(4) : formatBytes(memory),
    ),
    series: [{ as: "marks", name: "KL", values: bySize.map(({ klMean }) => klMean) }],
    mark: { place: bySize.indexOf(chosen), text: "chosen" },
  });
  const rows = measured.map((one) => {
    const size = one.memory === null ? "" : formatBytes(one.memory);
    return markup`<tr><td>${shapeText(one)}</td><td>${formatCount(one.parameters)}</td><td>${size}</td>${numberCell("KL", one.klMean)}<td>${formatPercent(one.top1)}</td>${numberCell("NLL", one.nll)}<td>${formatPercent(one.accuracy)}</td></tr>\n`;
  });
  const columns = ["shape", "parameters", "memory", "KL", "agreement", "NLL", "accuracy"];
  return markup`<h2>Search for a shape</h2>
<p>${`${formatCount(fits)} of ${formatQuantity(enumerated, "shape")} are within the limits, and ${formatCount(measured.length)} were measured. Chosen: ${shapeText(chosen)}, with a mean KL divergence of ${formatMeasure(chosen.klMean)}.`}</p>
<figure><div class="wide">${chart}</div><figcaption>Each dot is a shape that was run: small, left, to large, right. KL divergence from the source, in nats.</figcaption></figure>
<details><summary>Measured shapes, the best first</summary>${htmlTable(columns, rows, [1, 2, 3, 4, 5, 6], "")}</details>`;
}

type Measured = ShapeSearch["measured"][number];

const sizeOf = ({ memory, parameters }: Measured): number => memory ?? parameters;

/** `attention 5, mamba 45, mlp 48, ffn 30720` */
const shapeText = ({ counts, ffn }: Measured): string =>
  [...Object.entries(counts), ["ffn", ffn] as const]
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
