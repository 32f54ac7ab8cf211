/** Searches as text: for an automatic recipe and for a shape, and the sizes of shapes. */
import {
  escapeControls,
  formatBytes,
  formatCount,
  formatMeasure,
  formatPercent,
  formatQuantity,
} from "../core/figures.ts";
import type { ModelSizes, PruneReport, RecipeSearch, ShapeSearch } from "../index.ts";
import { factTable, tableWithHead, type View } from "./render.ts";

interface WithSearch {
  readonly search?: RecipeSearch;
}

/** A row for a table of facts. */
export function searchRow({ search }: WithSearch): [label: string, value: string | null] {
  if (search === undefined) return ["recipe", null];
  const { layers, tensors, chosen, points, backend, tokens, readings } = search;
  const { cast, bitsPerWeight, klMean } = points[chosen]!;
  const what =
    tensors === undefined
      ? `${cast.length} of ${formatQuantity(layers.length, "layer")} cast`
      : `types of ${formatQuantity(tensors.length, "tensor")}`;
  return [
    "recipe",
    `auto: ${what}, ${bitsPerWeight.toFixed(3)} bits a weight, KL ${formatMeasure(klMean)}; from ${formatQuantity(tokens, "token")} on ${backend}, weights read ${formatQuantity(readings, "time")}`,
  ];
}

/** A row for each layer that can be cast, and a row for each point of the curve. */
export function searchTables(search: RecipeSearch, view: View): string[] {
  const { layers, tensors, points, chosen } = search;
  if (tensors !== undefined) return typeTables({ ...search, tensors }, view);
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

/** A row for each tensor whose type was chosen, and a row for each point that was measured. */
function typeTables(
  { tensors, points, chosen }: RecipeSearch & Required<Pick<RecipeSearch, "tensors">>,
  view: View,
): string[] {
  const tensorRows = tensors.map(({ tensor, smallest, klMean, dtype }) => [
    ...[escapeControls(tensor), smallest, formatMeasure(klMean), dtype],
  ]);
  const pointRows = points.map(({ bytes, bitsPerWeight, klMean, top1, types = {}, kind = "" }, i) => [
    ...[formatBytes(bytes), bitsPerWeight.toFixed(3), formatMeasure(klMean), formatMeasure(top1)],
    i === chosen ? "chosen" : kind,
    typeCounts(types),
  ]);
  return [
    ...tableWithHead(view, ["tensor", "smallest", "KL of it", "chosen"], tensorRows, "llrl"),
    "",
    ...tableWithHead(view, ["bytes", "bits", "KL", "top-1", "", "tensors"], pointRows, "rrrrll"),
  ];
}

/** `Q4_K 12, Q6_K 3` */
const typeCounts = (types: Readonly<Record<string, number>>): string =>
  Object.entries(types)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([dtype, count]) => `${dtype} ${formatCount(count)}`)
    .join(", ");

type Row = readonly [label: string, value: string | readonly string[] | null];

/** Rows for a table of facts. */
export function memoryRows({ memory }: Pick<PruneReport, "memory">): readonly Row[] {
  if (memory === null) return [];
  const { weights, kv, state, total, limit } = memory;
  const parts = `weights ${formatBytes(weights)}, KV cache ${formatBytes(kv)}, state ${formatBytes(state)}`;
  return [["memory", [`${formatBytes(total)} of ${formatBytes(limit)}`, parts]]];
}

export function searchRows({ search }: Pick<PruneReport, "search">): readonly Row[] {
  if (search === null) return [];
  const { enumerated, fits, measured } = search;
  const found = `${formatCount(fits)} of ${formatQuantity(enumerated, "shape")} fit, ${formatCount(measured.length)} measured`;
  return [["search", found]];
}

/** A row for each shape that was measured, the best first. */
export function searchTable({ measured }: ShapeSearch, view: View): readonly string[] {
  const isBytes = measured.some(({ memory }) => memory !== null);
  const rows = measured.map(({ counts, ffn, parameters, memory, klMean, top1, nll, accuracy }) => [
    ...[countTexts(counts), formatCount(ffn), isBytes ? formatBytes(memory ?? 0) : formatCount(parameters)],
    ...[formatMeasure(klMean), formatPercent(top1), formatMeasure(nll), formatPercent(accuracy)],
  ]);
  const size = isBytes ? "memory" : "parameters";
  return tableWithHead(view, ["layers", "ffn", size, "KL", "top-1", "loss", "accuracy"], rows, "lrrrrrr");
}

export function sizesText(
  { architecture, memory, search, table = [] }: ModelSizes,
  view: View,
): readonly string[] {
  const { counts, ffn, parameters } = architecture;
  return [
    ...factTable(view, [
      ["layers", countTexts(counts)],
      ["ffn", ffn === 0 ? null : formatCount(ffn)],
      ["parameters", formatCount(parameters)],
      ...memoryRows({ memory }),
      [
        "fit",
        search && `${formatCount(search.fits)} of ${formatQuantity(search.enumerated, "shape")} of the grid`,
      ],
    ]),
    ...(memory !== null || table.length === 0 ? [] : ["", ...servingTable(table, view)]),
  ];
}

/** Precisions down, contexts across. */
function servingTable(table: NonNullable<ModelSizes["table"]>, view: View): readonly string[] {
  const contexts = [...new Set(table.map(({ context }) => context))];
  const nameOf = ({ precisions: { weights, kv, state } }: (typeof table)[number]) =>
    `${weights}, ${kv}, ${state}`;
  const names = [...new Set(table.map(nameOf))];
  const rows = names.map((name) => [
    name,
    ...contexts.map((context) =>
      formatBytes(table.find((row) => row.context === context && nameOf(row) === name)!.total),
    ),
  ]);
  const head = ["weights, KV cache, state", ...contexts.map((context) => `${formatCount(context)} tokens`)];
  return tableWithHead(view, head, rows, "lrrr");
}

const countTexts = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .flatMap(([kind, count]) => (count > 0 ? [`${count} ${kind}`] : []))
    .join(", ");
