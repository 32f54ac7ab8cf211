/** A verification in words: the meaning of a verdict, the measures of a rung, the limits. */
import {
  escapeControls,
  formatBytes,
  formatMeasure,
  formatPercent,
  formatQuantity,
} from "../core/figures.ts";
import type { LogitsMetrics, RerunMetrics, RungReport, Verdict, VerifyReport } from "../index.ts";
import { errorTexts } from "./recast-errors.ts";

/** The meaning of each verdict. */
export const MEANINGS = {
  same: "the same model",
  within: "the same model within the limits of its recast",
  different: "not the same model",
  unproven: "no difference was found, but the proof is incomplete",
} as const satisfies Record<Verdict, string>;

/** Numbers that compare logits; each kind of comparison has some of them. */
type LogitsNumbers = Readonly<
  Partial<Record<"tokens" | "maxAbs" | "relL2" | "klMean" | "klP99" | "top1" | "nllA" | "nllB", number>>
>;

/** In the order in which they are printed. */
const LOGITS: readonly (readonly [key: keyof LogitsNumbers, text: (value: number) => string])[] = [
  ["tokens", (value) => formatQuantity(value, "token")],
  ["maxAbs", (value) => `max |Δlogit| ${formatMeasure(value)}`],
  ["relL2", (value) => `relative L2 ${formatMeasure(value)}`],
  ["klMean", (value) => `KL mean ${formatMeasure(value)} nats`],
  ["klP99", (value) => `KL p99 ${formatMeasure(value)} nats`],
  ["top1", (value) => `top-1 ${formatPercent(value)}`],
  ["nllA", (value) => `NLL A ${value.toFixed(4)} nats/token`],
  ["nllB", (value) => `NLL B ${value.toFixed(4)} nats/token`],
];

/** Where a verification ran. */
export function machineFacts(report: VerifyReport): [label: string, text: string][] {
  const { backend, device, comparedByTasks = 0, layersByTasks = 0 } = report;
  const done = [
    ...(comparedByTasks > 0 ? [`${formatQuantity(comparedByTasks, "tensor")} compared`] : []),
    ...(layersByTasks > 0 ? [`${formatQuantity(layersByTasks, "layer")} run`] : []),
  ];
  return [
    ["run on", backend === null ? "no forward pass" : `${backend}, ${device}`],
    ...(done.length > 0 ? [["by tasks", done.join(", ")] as [string, string]] : []),
  ];
}

/** The measures of a rung as short texts. */
export function measureTexts(rung: RungReport): string[] {
  switch (rung.rung) {
    case "cover":
      return Object.entries(rung.metrics).flatMap(metricText);
    case "bytes":
      return [...Object.entries(rung.metrics).flatMap(metricText), ...recastTexts(rung.metrics)];
    case "logits":
      return [...numbersText(rung.metrics), ...proofText(rung.metrics)];
    case "reference":
      return numbersText(rung.metrics);
    default:
      return rung satisfies never;
  }
}

/** The error of a recast; empty if nothing was recast. */
function recastTexts(metrics: Extract<RungReport, { rung: "bytes" }>["metrics"]): readonly string[] {
  return "error" in metrics && metrics.error !== undefined ? errorTexts(metrics.error) : [];
}

const numbersText = (numbers: LogitsNumbers): string[] =>
  LOGITS.flatMap(([key, text]) => {
    const value = numbers[key];
    return value === undefined ? [] : [text(value)];
  });

/** Evidence of the logits rung: wiring, routing, tensors that were not read, controls. */
function proofText(metrics: LogitsMetrics | RerunMetrics): string[] {
  const { routing } = metrics;
  const compared = "wiring" in metrics ? metrics : undefined;
  const { wiring, unread = [] } = compared ?? {};
  return [
    wiring === undefined
      ? []
      : `wiring ${formatMeasure(wiring.maxRelL2)} of at most ${formatMeasure(wiring.limit)} relative L2`,
    routing === undefined || routing.flips === 0 ? [] : formatQuantity(routing.flips, "routing flip"),
    routing?.beyond ? `${formatQuantity(routing.beyond, "choice")} of experts that no near tie explains` : [],
    unread.length === 0 ? [] : `unread: ${unread.map(escapeControls).join(" ")}`,
    compared === undefined ? [] : controlsText(compared.controls),
  ].flat();
}

/** Metrics of two forward passes; undefined where no or only one forward pass ran. */
export function comparedLogits({ rungs }: VerifyReport): LogitsMetrics | undefined {
  const logits = rungs.find((rung) => rung.rung === "logits");
  return logits !== undefined && "layers" in logits.metrics ? logits.metrics : undefined;
}

export function controlsText(controls: readonly { readonly caught: boolean | null }[]): string {
  const decided = controls.filter(({ caught }) => caught !== null);
  if (controls.length === 0) return "controls not run";
  return `${decided.filter(({ caught }) => caught).length} of ${formatQuantity(decided.length, "control")} caught`;
}

/** `tensorsCompared: 3` as `3 tensors compared`; only numbers are part of a summary. */
function metricText([key, value]: [string, unknown]): string[] {
  if (typeof value !== "number") return [];
  if (/bytes$/i.test(key))
    return [key === "bytes" ? formatBytes(value) : `${worded(key)} ${formatBytes(value)}`];
  return Number.isInteger(value)
    ? [formatQuantity(value, worded(key).replace(/s$/, ""), worded(key))]
    : [`${worded(key)} ${formatMeasure(value)}`];
}

const worded = (key: string): string => key.replace(/(?<=[a-z0-9])[A-Z]/g, (c) => ` ${c.toLowerCase()}`);

function limitText([key, value]: [string, number]): string {
  switch (key) {
    case "klP99":
      return `KL p99 at most ${formatMeasure(value)} nats`;
    case "klMean":
      return `KL mean at most ${formatMeasure(value)} nats`;
    case "top1":
      return `top-1 at least ${formatPercent(value)}`;
    case "wiring":
      return `wiring at most ${formatMeasure(value)} relative L2`;
    default:
      return `${worded(key)} ${formatMeasure(value)}`;
  }
}

/** The limits of a verification, each beside the value that was judged by it, if two forward passes ran. */
export function limitTexts(report: VerifyReport, withMeasured = true): string[] {
  const logits = withMeasured ? comparedLogits(report) : undefined;
  const { unjudged = [] } = report;
  const measured: Readonly<Record<string, string>> =
    logits === undefined
      ? {}
      : {
          klMean: formatMeasure(logits.klMean),
          klP99: formatMeasure(logits.klP99),
          top1: formatPercent(logits.top1),
          wiring: formatMeasure(logits.wiring.maxRelL2),
        };
  return Object.entries(report.limits).map((limit) => {
    if (unjudged.includes(limit[0])) return `${limitText(limit)}: not judged`;
    const value = measured[limit[0]];
    return value === undefined ? limitText(limit) : `${limitText(limit)} (${value} measured)`;
  });
}

/** The verdict of a certificate, with its measures and limits. */
export function certifiedText({
  verdict,
  limits,
  quality,
}: NonNullable<VerifyReport["certificate"]>): readonly string[] {
  const measured = quality === null ? ["without a forward pass"] : numbersText(quality);
  const held = Object.entries(limits).map(limitText);
  return [`issued as ${verdict}`, ...measured, ...held];
}
