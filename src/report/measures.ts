/** A verification in words: what a verdict means, what a rung measured, which limits held. */
import type { RungReport, Verdict, VerifyReport } from "../api/reports.ts";
import { bytes, counted, grouped, measured, percent, visible } from "./figures.ts";

/** What a verdict means for whoever waits for it. */
export const MEANINGS = {
  same: "the same model",
  within: "the same model within the limits of its recast",
  different: "not the same model",
  unproven: "nothing wrong was found, but the proof is incomplete",
} as const satisfies Record<Verdict, string>;

export const passed = (verdict: Verdict): boolean => verdict === "same" || verdict === "within";

type Metrics = RungReport["metrics"];

/** Metrics of the logits rung, in the order in which they are read. */
const LOGITS: readonly (readonly [key: string, text: (value: number) => string])[] = [
  ["tokens", (value) => counted(value, "token")],
  ["maxAbs", (value) => `max |Δlogit| ${measured(value)}`],
  ["relL2", (value) => `relative L2 ${measured(value)}`],
  ["klMean", (value) => `KL mean ${measured(value)} nats`],
  ["klP99", (value) => `KL p99 ${measured(value)} nats`],
  ["top1", (value) => `top-1 ${percent(value)}`],
  ["nllA", (value) => `NLL A ${value.toFixed(4)} nats/token`],
  ["nllB", (value) => `NLL B ${value.toFixed(4)} nats/token`],
];

/** What a rung found, as phrases in the order in which they are read. */
export function measures({ rung, metrics }: RungReport): string[] {
  if (rung !== "logits" && rung !== "reference") return Object.entries(metrics).flatMap(metricText);
  const numbers = LOGITS.flatMap(([key, text]) => {
    const value = metrics[key];
    return typeof value === "number" ? [text(value)] : [];
  });
  return rung === "reference" ? numbers : [...numbers, ...proofText(metrics)];
}

/** How far the logits rung may be believed: wiring, routing, what nothing read, which sabotages were caught. */
function proofText(metrics: Metrics): string[] {
  const { wiring, routing, unread, controls } = metrics as Partial<{
    // the contract gives the logits rung these; a rung that stopped early has only some
    wiring: { maxRelL2: number; limit: number };
    routing: { flips: number; beyond?: number };
    unread: readonly string[];
    controls: readonly { caught: boolean | null }[];
  }>;
  return [
    wiring === undefined
      ? []
      : `wiring ${measured(wiring.maxRelL2)} of at most ${measured(wiring.limit)} relative L2`,
    routing === undefined || routing.flips === 0 ? [] : counted(routing.flips, "routing flip"),
    routing?.beyond ? `${counted(routing.beyond, "choice")} of experts that no near tie explains` : [],
    unread === undefined || unread.length === 0 ? [] : `unread: ${unread.map(visible).join(" ")}`,
    controls === undefined ? [] : controlsText(controls),
  ].flat();
}

function controlsText(controls: readonly { readonly caught: boolean | null }[]): string {
  const decided = controls.filter(({ caught }) => caught !== null);
  if (controls.length === 0) return "controls not run";
  return `${decided.filter(({ caught }) => caught).length} of ${counted(decided.length, "control")} caught`;
}

/** `tensorsCompared: 3` as `3 tensors compared`; what is no number stays out of a summary. */
function metricText([key, value]: [string, unknown]): string[] {
  if (typeof value !== "number") return [];
  if (/bytes$/i.test(key)) return [key === "bytes" ? bytes(value) : `${worded(key)} ${bytes(value)}`];
  return Number.isInteger(value)
    ? [`${grouped(value)} ${worded(key)}`]
    : [`${worded(key)} ${measured(value)}`];
}

const worded = (key: string): string => key.replace(/(?<=[a-z0-9])[A-Z]/g, (c) => ` ${c.toLowerCase()}`);

export function limitText([key, value]: [string, number]): string {
  switch (key) {
    case "klP99":
      return `KL p99 at most ${measured(value)} nats`;
    case "klMean":
      return `KL mean at most ${measured(value)} nats`;
    case "top1":
      return `top-1 at least ${percent(value)}`;
    case "wiring":
      return `wiring at most ${measured(value)} relative L2`;
    default:
      return `${worded(key)} ${measured(value)}`;
  }
}

/** With which verdict a certificate was issued: what was measured, and under which limits. */
export function certifiedText({
  verdict,
  limits,
  quality,
}: NonNullable<VerifyReport["certificate"]>): readonly string[] {
  const measured = LOGITS.flatMap(([key, text]) => {
    const value = quality?.[key as keyof typeof quality];
    return value === undefined ? [] : [text(value)];
  });
  const held = Object.entries(limits).map(limitText);
  return [`issued as ${verdict}`, ...(quality === null ? ["without a forward pass"] : measured), ...held];
}
