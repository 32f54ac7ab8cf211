/** `plan`: shows what `convert` would do; writes nothing. */
import {
  escapeControls,
  formatBytes,
  formatCount,
  formatMeasure,
  formatPercent,
  formatQuantity,
} from "../../core/figures.ts";
import type {
  MeasureOptions,
  PlanFileOptions,
  PlannedTensor,
  PlanReport,
  SearchOptions,
} from "../../index.ts";
import { errorTexts, measuredTensors, partTexts } from "../../report/recast-errors.ts";
import { DESTINATION, defineCommand, SOURCE } from "../command.ts";
import { nameFlags } from "../flag-names.ts";
import { leftOutRows } from "../left-out.ts";
import { CALIBRATION, MACHINE, PLACEMENT, PROMPT, RECAST, SOURCE_OPTIONS, WITH_EVENTS } from "../options.ts";
import { factTable, LABELS, tableWithHead, type View, wrapParts } from "../render.ts";
import { refuseWithoutTarget, targetOf } from "../request.ts";
import { searchRow, searchTables } from "../searches.ts";

/** Number of files that fit on a screen. */
const FEW_FILES = 12;

export const plan = defineCommand<SearchOptions & MeasureOptions & PlanFileOptions>({
  name: "plan",
  summary: "show what `convert` would do: names, casts, bytes, peak memory",
  positionals: [SOURCE, DESTINATION],
  flags: [
    ...SOURCE_OPTIONS,
    "to",
    ...RECAST,
    ...CALIBRATION,
    "measure",
    ...PLACEMENT,
    "kl",
    "top1",
    "tolerance",
    "out",
    ...PROMPT,
    ...MACHINE,
    ...WITH_EVENTS,
  ],
  helps: {
    out: { about: "also write the plan to this file, for `convert --plan` and `merge`" },
  },
  examples: [
    "plan ./nemotron-h-8b model.isologit",
    "plan ./nemotron-h-8b ./fp8 --to hf --dtype fp8-e4m3 --verbose",
    "plan ./nemotron-h-8b ./fp8 --to hf --dtype fp8-e4m3 --measure",
    "plan ./nemotron-h-8b model.isologit --out plan.json",
  ],
  async run({ positionals: { SRC, DST }, flags, options }, { library }) {
    const to = targetOf(flags, DST!, await library.formats({ plugins: options.plugins }));
    // A dtype without a format is the plan of `recast`, which keeps the format.
    if (to === undefined && options.dtype === undefined) refuseWithoutTarget(DST!);
    const planned = await library.plan(SRC!, DST!, { ...options, ...(to !== undefined && { to }) });
    const report = { ...planned, warnings: planned.warnings.map(nameFlags) };
    return { report, exit: 0, text: (view) => planText(report, view) };
  },
});

function planText(report: PlanReport, view: View): string[] {
  const { source, destination, files, tensors } = report;
  return [
    ...factTable(view, [
      ["plan", escapeControls(report.id)],
      ["source", `${source.format}, ${formatBytes(source.bytes)}, ${escapeControls(source.address)}`],
      [
        "destination",
        `${destination.format}, ${formatBytes(destination.bytes)}, ${escapeControls(destination.path)}`,
      ],
      ["values", valuesText(report)],
      ...fileKindRows(report),
      ["reads", formatBytes(report.bytesRead)],
      ["writes", `${formatBytes(report.bytesWritten)} in ${formatQuantity(files.length, "file")}`],
      ["peak memory", `${formatBytes(report.peakBytes)} of buffers`],
      searchRow(report),
      ...calibrationRows(report),
      ...measurementRows(report, view),
      ...leftOutRows(report),
      ...report.warnings.map((warning): [string, string] => [
        "warning",
        view.paint("yellow", escapeControls(warning)),
      ]),
    ]),
    "",
    ...dtypeTable(tensors, view),
    ...(report.exact ? [] : ["", ...roleTable(tensors, view)]),
    ...errorTable(report, view),
    ...(report.search === undefined ? [] : ["", ...searchTables(report.search, view)]),
    ...(files.length <= FEW_FILES || view.verbose ? ["", ...fileTable(files, view)] : []),
    ...(view.verbose ? ["", ...tensorTable(tensors, view)] : []),
  ];
}

/** What the calibrated scales come from. */
/** The OCP type in place of a FNUZ type changes no value. */
function valuesText({ exact, tensors }: PlanReport): string {
  if (exact) return "exact: every bit is unchanged";
  const isRelabelled = tensors.every(
    ({ dtype, sourceDtype }) => dtype === sourceDtype || sourceDtype === `${dtype}FNUZ`,
  );
  return isRelabelled ? "recast: no value changes" : "recast: some values are rounded";
}

const fileKindRows = ({ fileKind }: PlanReport): [string, string][] => {
  if (fileKind === undefined) return [];
  const { id, types, bitsPerWeight } = fileKind;
  const counts = types.map(({ dtype, tensors }) => `${dtype} ${formatCount(tensors)}`);
  return [[id, `${bitsPerWeight.toFixed(2)} bits a weight; tensors: ${counts.join(", ")}`]];
};

const calibrationRows = ({ calibration }: PlanReport): [string, string][] => {
  if (calibration === undefined) return [];
  const { prompt, prompts = 1, tokens, sha256, scales } = calibration;
  const given = prompts === 1 ? "the given prompt" : `${formatCount(prompts)} given prompts`;
  const origin = prompt === "bundled" ? "the bundled prompt" : given;
  const count = formatQuantity(Object.keys(scales).length, "scale");
  return [
    ["calibration", `${count} from ${formatQuantity(tokens, "token")} of ${origin}, SHA-256 ${sha256}`],
  ];
};

/** Tensors with the largest errors that fit on a screen. */
const FEW_TENSORS = 8;

/** The error of all recasts, and what `verify` will say about it. */
function measurementRows({ measurement }: PlanReport, view: View): [string, string | string[]][] {
  if (measurement === undefined) return [];
  const { error, tensors, differences, findings } = measurement;
  if (error === null) return [["error", "none: no tensor is recast"]];
  const wrap = (text: string) => wrapParts(escapeControls(text).split(" "), view.width - LABELS, " ");
  const where = `in ${formatQuantity(tensors.length, "recast tensor")}`;
  return [
    ["error", wrapParts([...errorTexts(error), where], view.width - LABELS)],
    ...differences.map(({ tensors: names, message }): [string, string[]] => [
      view.paint("red", "different"),
      wrap(`${names.at(-1)!}: ${message}`),
    ]),
    ...findings.map((text): [string, string[]] => ["remark", wrap(text)]),
  ];
}

/** The tensors with the largest errors. */
function errorTable({ measurement }: PlanReport, view: View): string[] {
  if (measurement === undefined || measurement.error === null) return [];
  const all = measuredTensors(measurement.tensors);
  const rows = (view.verbose ? all : all.slice(0, FEW_TENSORS)).map(({ b, error }) => [
    formatMeasure(error.relL2),
    formatPercent(error.clipped),
    formatPercent(error.flushed),
    escapeControls(b),
    partTexts(error).join(", "),
  ]);
  const hasParts = all.some(({ error }) => error.parts.length > 0);
  const title = ["relative L2", "clipped", "became 0", "largest errors", hasParts ? "lossy rows" : ""];
  return ["", ...tableWithHead(view, title, rows, "rrrll")];
}

/** One row for each pair of dtypes, in the order of the tensors. */
function dtypeTable(tensors: readonly PlannedTensor[], view: View): string[] {
  const pairs = new Map<string, { from: string; to: string; tensors: number; bytes: number }>();
  for (const { sourceDtype: from, dtype: to, bytes: size } of tensors) {
    const key = `${from} ${to}`;
    const sum = pairs.get(key) ?? { from, to, tensors: 0, bytes: 0 };
    pairs.set(key, { ...sum, tensors: sum.tensors + 1, bytes: sum.bytes + size });
  }
  const rows = [...pairs.values()].map((pair) => [
    pair.from,
    pair.from === pair.to ? "unchanged" : pair.to,
    formatCount(pair.tensors),
    formatBytes(pair.bytes),
  ]);
  return tableWithHead(view, ["dtype", "becomes", "tensors", "bytes"], rows, "llrr");
}

/** One row for each role, what becomes of it, and why. */
function roleTable(tensors: readonly PlannedTensor[], view: View): string[] {
  const rows = new Map<string, { readonly cells: readonly string[]; readonly tensors: number }>();
  for (const { role, sourceDtype, dtype, why } of tensors) {
    const cells = [role, sourceDtype === dtype ? "unchanged" : dtype, why];
    const key = cells.join("\n");
    rows.set(key, { cells, tensors: (rows.get(key)?.tensors ?? 0) + 1 });
  }
  const order = [...new Set(tensors.map(({ role }) => role))];
  const sorted = [...rows.values()].sort((a, b) => order.indexOf(a.cells[0]!) - order.indexOf(b.cells[0]!));
  return tableWithHead(
    view,
    ["role", "becomes", "tensors", "why"],
    sorted.map(({ cells: [role, becomes, why], tensors }) => [
      ...[role!, becomes!, formatCount(tensors), why!], // each row has three cells
    ]),
    "llrl",
  );
}

const fileTable = (files: PlanReport["files"], view: View): string[] =>
  tableWithHead(
    view,
    ["bytes", "file"],
    files.map(({ path, size }) => [formatBytes(size), escapeControls(path) || "(the destination itself)"]),
    "rl",
  );

const tensorTable = (tensors: readonly PlannedTensor[], view: View): string[] =>
  tableWithHead(
    view,
    ["dtype", "shape", "bytes", "name", ""],
    tensors.map(({ name, from, dtype, sourceDtype, shape, bytes: size }) => [
      sourceDtype === dtype ? dtype : `${sourceDtype} to ${dtype}`,
      shape.join(" x ") || "scalar",
      formatBytes(size),
      escapeControls(name),
      from === name ? "" : `from ${escapeControls(from)}`,
    ]),
    "lrrl",
  );
