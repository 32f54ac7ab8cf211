/** A verification as a person reads it: the verdict, then each rung with the numbers it rests on. */
import type { RungReport, Verdict, VerifyReport } from "../api.ts";
import {
  bytes,
  counted,
  facts,
  flow,
  grouped,
  measured,
  type Paint,
  percent,
  some,
  type View,
  visible,
} from "./render.ts";

const COLOURS = { same: "green", within: "green", different: "red", unproven: "yellow" } as const;

/** What a verdict means for whoever waits for it. */
const MEANINGS = {
  same: "the same model",
  within: "the same model within the limits of its recast",
  different: "not the same model",
  unproven: "nothing wrong was found, but the proof is incomplete",
} as const satisfies Record<Verdict, string>;

export const passed = (verdict: Verdict): boolean => verdict === "same" || verdict === "within";

const painted = (paint: Paint, verdict: Verdict): string => paint(COLOURS[verdict], verdict);

/** Columns that labels take in the facts around it. */
const LABELS = 18;

export function verificationText(report: VerifyReport, view: View): string[] {
  const { paint } = view;
  const wide = view.width - LABELS;
  const { backend, device, firstDivergence: first } = report;
  return facts(view, [
    ["verdict", `${painted(paint, report.verdict)}: ${MEANINGS[report.verdict]}`],
    // a device's name may hold a whole reason: it is broken between words
    [
      "run on",
      backend === null ? "no forward pass" : flow(visible(`${backend}, ${device}`).split(" "), wide, " "),
    ],
    ...report.rungs.map((rung): [string, string[]] => [
      rung.rung,
      flow([painted(paint, rung.verdict), ...measures(rung)], wide),
    ]),
    ["certificate", report.certificate === null ? null : certificateText(report.certificate)],
    ["bundle", report.bundle === undefined ? null : bundleText(report.bundle)],
    ["limits", flow(Object.entries(report.limits).map(limitText), wide)],
    [
      "first divergence",
      first === null
        ? null
        : [
            `layer ${first.layer} (${first.kind})${first.door === undefined ? "" : `, door ${visible(first.door)}`}`,
            ...some(first.tensors.map(visible), view.verbose ? Number.POSITIVE_INFINITY : 4),
          ],
    ],
    ...report.findings.map((finding): [string, string] => ["finding", visible(finding)]),
  ]);
}

function certificateText({
  sha256,
  tool,
  reference,
  signedBy,
}: NonNullable<VerifyReport["certificate"]>): string[] {
  const claims = [
    `by ${visible(tool)}`,
    reference ? "other software's logits met" : "no other software asked",
    signedBy === null ? "unsigned" : `signed by key ${signedBy}`,
  ];
  return [sha256, claims.join(", ")];
}

function bundleText({ signedBy, issuer, files }: NonNullable<VerifyReport["bundle"]>): string[] {
  const who = issuer === null ? `key ${signedBy}` : `${visible(signedBy)}, says ${visible(issuer)}`;
  return [who, `${counted(files, "file")} signed`];
}

/** Content roots of two sides; nothing where the bytes rung computed none. */
export function rootLines(
  a: string | null,
  b: string | null,
  sides: readonly [a: string, b: string],
): readonly string[] {
  if (a === null && b === null) return [];
  if (a === b) return [`${a}, both sides`];
  return [`${a ?? "unknown"}, ${sides[0]}`, `${b ?? "unknown"}, ${sides[1]}`];
}

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

function measures({ rung, metrics }: RungReport): string[] {
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
    routing: { flips: number };
    unread: readonly string[];
    controls: readonly { caught: boolean | null }[];
  }>;
  return [
    wiring === undefined
      ? []
      : `wiring ${measured(wiring.maxRelL2)} of at most ${measured(wiring.limit)} relative L2`,
    routing === undefined || routing.flips === 0 ? [] : counted(routing.flips, "routing flip"),
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

function limitText([key, value]: [string, number]): string {
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
