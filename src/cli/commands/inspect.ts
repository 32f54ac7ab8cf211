/** `inspect`: what a checkpoint is, from its headers. */
import type { InspectReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import type { Library } from "../library.ts";
import { SOURCE_OPTIONS, WITH_EVENTS } from "../options.ts";
import { bytes, facts, flow, grouped, headed, some, type View, visible } from "../render.ts";

export const inspect = defineCommand<NonNullable<Parameters<Library["inspect"]>[1]>>({
  name: "inspect",
  summary: "show format, dialect, family, layers, dtypes and sizes; reads only headers",
  places: [SOURCE],
  flags: [...SOURCE_OPTIONS, "tensors", ...WITH_EVENTS],
  examples: [
    "inspect ./nemotron-h-8b",
    "inspect model.isologit --tensors",
    "inspect model.safetensors --json",
  ],
  async run({ places: { SRC }, options }, { library }) {
    const report = await library.inspect(SRC!, options);
    return { report, exit: 0, text: (view) => inspectText(report, view) };
  },
});

function inspectText(report: InspectReport, view: View): string[] {
  const { layers, quantization } = report;
  const wide = view.width - 16;
  const kinds = Object.entries(layers).filter(([, count]) => count > 0);
  const scale = report.parameters >= 1e6 ? ` (${millions(report.parameters)})` : "";
  return [
    ...facts(view, [
      ["format", report.format],
      ["dialect", report.dialect ?? "unknown"],
      ["family", report.family ?? "unknown"],
      ["pattern", report.pattern === null ? null : pieces(visible(report.pattern), wide)],
      ["layers", kinds.length === 0 ? null : kinds.map(([kind, count]) => `${count} ${kind}`).join(", ")],
      ["parameters", `${grouped(report.parameters)}${scale}`],
      ["size", bytes(report.bytes)],
      ["quantization", quantization === null ? "none" : flow(settingTexts(quantization), wide)],
      [
        "side files",
        flow(some(report.sidecars.map(visible), view.verbose ? Number.POSITIVE_INFINITY : 12), wide),
      ],
    ]),
    "",
    ...headed(
      view,
      ["dtype", "tensors", "bytes", "share"],
      Object.entries(report.dtypes).map(([dtype, { tensors, bytes: size }]) => [
        dtype,
        grouped(tensors),
        bytes(size),
        `${((100 * size) / Math.max(report.bytes, 1)).toFixed(1)} %`,
      ]),
      "lrrr",
    ),
    ...(report.tensors === undefined ? [] : ["", ...tensorTable(report.tensors, view)]),
  ];
}

/** Names last: they are the longest, and nothing has to align behind them. */
function tensorTable(tensors: NonNullable<InspectReport["tensors"]>, view: View): string[] {
  return headed(
    view,
    ["dtype", "shape", "layer", "role", "name"],
    tensors.map(({ name, role, layer, dtype, shape, scale }) => [
      dtype,
      shape.join(" x ") || "scalar",
      layer === null ? "" : String(layer),
      role ?? "",
      visible(name) + (scale === undefined ? "" : `, scaled by ${visible(scale)}`),
    ]),
    "lrrll",
  );
}

const millions = (count: number): string =>
  count >= 1e9 ? `${(count / 1e9).toFixed(2)} billion` : `${(count / 1e6).toFixed(1)} million`;

const pieces = (text: string, width: number): string[] => text.match(new RegExp(`.{1,${width}}`, "gu")) ?? [];

const settingTexts = (settings: Readonly<Record<string, unknown>>): string[] =>
  Object.entries(settings).map(([key, value]) =>
    visible(`${key} ${typeof value === "string" ? value : JSON.stringify(value)}`),
  );
