/** `inspect`: describes a checkpoint from its headers. */
import { escapeControls, formatBytes, formatCount, formatQuantity } from "../../core/figures.ts";
import type { InspectReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import type { Library } from "../library.ts";
import { SOURCE_OPTIONS, WITH_EVENTS } from "../options.ts";
import { factTable, firstItems, tableWithHead, type View, wrapParts } from "../render.ts";

export const inspect = defineCommand<NonNullable<Parameters<Library["inspect"]>[1]>>({
  name: "inspect",
  summary: "show format, dialect, family, layers, dtypes and sizes; reads only headers",
  positionals: [SOURCE],
  flags: [...SOURCE_OPTIONS, "tensors", ...WITH_EVENTS],
  examples: [
    "inspect ./nemotron-h-8b",
    "inspect model.isologit --tensors",
    "inspect model.safetensors --json",
  ],
  async run({ positionals: { SRC }, options }, { library }) {
    const report = await library.inspect(SRC!, options);
    return { report, exit: 0, text: (view) => inspectText(report, view) };
  },
});

function inspectText(report: InspectReport, view: View): string[] {
  const { layers, quantization, training, gguf } = report;
  const wide = view.width - 16;
  const kinds = Object.entries(layers).filter(([, count]) => count > 0);
  const scale = report.parameters >= 1e6 ? ` (${millions(report.parameters)})` : "";
  return [
    ...factTable(view, [
      ["format", report.format],
      ["dialect", gguf === undefined ? (report.dialect ?? "unknown") : null],
      ["family", report.family ?? "unknown"],
      ...(gguf === undefined ? [] : ggufRows(gguf, wide, kinds.length > 0)),
      ["pattern", report.pattern === null ? null : pieces(escapeControls(report.pattern), wide)],
      ["layers", kinds.length === 0 ? null : kinds.map(([kind, count]) => `${count} ${kind}`).join(", ")],
      ["sizes", report.dims === null ? null : wrapParts(sizeTexts(report.dims), wide)],
      ["vocabulary", vocabularyText(report)],
      ["ranks", ranksText(report.ranks)],
      ["iteration", report.iteration === null ? null : String(report.iteration)],
      ["parameters", `${formatCount(report.parameters)}${scale}`],
      ["size", formatBytes(report.bytes)],
      ["quantization", quantization === null ? "none" : wrapParts(settingTexts(quantization), wide)],
      ["training", training === undefined ? null : wrapParts(trainingTexts(training), wide)],
      [
        "side files",
        wrapParts(
          firstItems(report.sidecars.map(escapeControls), view.verbose ? Number.POSITIVE_INFINITY : 12),
          wide,
        ),
      ],
    ]),
    "",
    ...tableWithHead(
      view,
      ["dtype", "tensors", "bytes", "share"],
      Object.entries(report.dtypes).map(([dtype, { tensors, bytes: size }]) => [
        dtype,
        formatCount(tensors),
        formatBytes(size),
        `${((100 * size) / Math.max(report.bytes, 1)).toFixed(1)} %`,
      ]),
      "lrrr",
    ),
    ...(report.tensors === undefined ? [] : ["", ...tensorTable(report.tensors, view)]),
  ];
}

type Row = readonly [label: string, value: readonly string[] | string | null];

/**
 * What a GGUF says of its model.
 *
 * @param hasKinds the layers are told by kind, because the family is known
 */
function ggufRows(gguf: NonNullable<InspectReport["gguf"]>, wide: number, hasKinds: boolean): readonly Row[] {
  const { architecture, name, fileType, layers, contextLength, tokenizer, parts } = gguf;
  const tokens = tokenizer.tokens === null ? [] : [formatQuantity(tokenizer.tokens, "token")];
  const { model, pre, chatTemplateBytes: template } = tokenizer;
  const about = [
    ...(model === null ? [] : [escapeControls(model)]),
    ...(pre === null ? [] : [`pre-tokenizer ${escapeControls(pre)}`]),
    ...tokens,
    template === null ? "no chat template" : `chat template of ${formatBytes(template)}`,
  ];
  return [
    ["architecture", architecture === null ? "unknown" : escapeControls(architecture)],
    ["name", name === null ? null : escapeControls(name)],
    ["file type", fileType],
    ["layers", layers === null || hasKinds ? null : formatCount(layers)],
    ["context", contextLength === null ? null : formatQuantity(contextLength, "token")],
    ["tokenizer", wrapParts(about, wide)],
    ["parts", parts.length === 1 ? null : formatQuantity(parts.length, "file")],
  ];
}

/** Sizes in the order of the table, as far as the model has them. */
const SIZES = [
  ["hidden", "hidden"],
  ["ffn", "MLP"],
  ["heads", "attention heads"],
  ["kvHeads", "KV heads"],
  ["headDim", "per head"],
  ["mambaHeads", "Mamba heads"],
  ["mambaHeadDim", "per Mamba head"],
  ["groups", "Mamba groups"],
  ["state", "state"],
  ["experts", "experts"],
  ["topK", "experts a token"],
  ["moeFfn", "per expert"],
] as const;

const sizeTexts = (dims: NonNullable<InspectReport["dims"]>): string[] =>
  SIZES.flatMap(([name, text]) => (dims[name] === undefined ? [] : [`${text} ${formatCount(dims[name])}`]));

function vocabularyText({ dims, paddingRows }: InspectReport): string | null {
  if (dims?.vocab === undefined) return null;
  const tokens = formatQuantity(dims.vocab, "token");
  return paddingRows === 0 ? tokens : `${tokens}, and ${formatQuantity(paddingRows, "row")} of padding`;
}

function ranksText({ tp, pp, ep }: InspectReport["ranks"]): string | null {
  return tp * pp * ep === 1 ? null : `${tp} tensor-parallel, ${pp} pipeline-parallel, ${ep} expert-parallel`;
}

/** Names are last, because they are long and no column follows them. */
function tensorTable(tensors: NonNullable<InspectReport["tensors"]>, view: View): string[] {
  return tableWithHead(
    view,
    ["dtype", "shape", "layer", "role", "name"],
    tensors.map(({ name, role, layer, dtype, shape, scale }) => [
      dtype,
      shape.join(" x ") || "scalar",
      layer === null ? "" : String(layer),
      role ?? "",
      escapeControls(name) + (scale === undefined ? "" : `, scaled by ${escapeControls(scale)}`),
    ]),
    "lrrll",
  );
}

const millions = (count: number): string =>
  count >= 1e9 ? `${(count / 1e9).toFixed(2)} billion` : `${(count / 1e6).toFixed(1)} million`;

const pieces = (text: string, width: number): string[] => text.match(new RegExp(`.{1,${width}}`, "gu")) ?? [];

const trainingTexts = ({
  recipes,
  modules,
  withScales,
}: NonNullable<InspectReport["training"]>): string[] => [
  "FP8 of Transformer Engine",
  ...Object.entries(recipes).map(([recipe, count]) =>
    escapeControls(`${formatQuantity(count, "module")} ${recipe}`),
  ),
  `${formatCount(withScales)} of ${formatCount(modules)} modules with scales`,
];

/** One text for each setting that is not empty. */
const settingTexts = (settings: Readonly<Record<string, unknown>>): string[] =>
  Object.entries(settings).flatMap(([key, value]) => {
    const text = Array.isArray(value) ? value.join("; ") : value;
    return text === null || text === "" ? [] : [escapeControls(`${key} ${text}`)];
  });
