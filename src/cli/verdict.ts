/** A verification as text with every measure: the verdict, then each rung. */
import { isDeepStrictEqual } from "node:util";
import { escapeControls, formatQuantity } from "../core/figures.ts";
import type { Verdict, VerifyReport } from "../index.ts";
import { certifiedText, limitTexts, MEANINGS, machineFacts, measureTexts } from "../report/measures.ts";
import { objections, selectGravest } from "../report/problems.ts";
import { factTable, LABELS, type Paint, type View, wrapParts } from "./render.ts";

const COLOURS = { same: "green", within: "green", different: "red", unproven: "yellow" } as const;

export const paintVerdict = (paint: Paint, verdict: Verdict): string => paint(COLOURS[verdict], verdict);

export function verificationText(report: VerifyReport, view: View): string[] {
  const { paint } = view;
  const wide = view.width - LABELS;
  const worded = (text: string) => wrapParts(escapeControls(text).split(" "), wide, " "); // breaks lines between words
  const { firstDivergence: first } = report;
  const inRungs = new Set(report.rungs.flatMap(objections));
  const others = report.findingDetails.filter(({ message }) => !inRungs.has(message));
  return factTable(view, [
    ["verdict", `${paintVerdict(paint, report.verdict)}: ${MEANINGS[report.verdict]}`],
    ...machineFacts(report).map(([label, text]): [string, string[]] => [label, worded(text)]),
    ...report.rungs.map((rung): [string, string[]] => [
      rung.rung,
      [
        ...wrapParts([paintVerdict(paint, rung.verdict), ...measureTexts(rung)], wide),
        ...objections(rung).map(escapeControls),
      ],
    ]),
    ["certificate", report.certificate === null ? null : certificateText(report.certificate, report, wide)],
    ["bundle", report.bundle === undefined ? null : bundleText(report.bundle)],
    ["limits", wrapParts(limitTexts(report, false), wide)],
    [
      "first divergence",
      first === null
        ? null
        : [
            `layer ${first.layer} (${first.kind})${first.door === undefined ? "" : `, door ${escapeControls(first.door)}`}`,
            ...first.tensors.map(escapeControls),
          ],
    ],
    ...selectGravest(others, others.length).shown.map(({ severity, message }): [string, string[]] => [
      severity === "note" ? "remark" : "difference",
      worded(message),
    ]),
  ]);
}

/** The limits of the certificate are printed only if they differ from the limits of this run. */
function certificateText(
  certificate: NonNullable<VerifyReport["certificate"]>,
  { limits }: VerifyReport,
  wide: number,
): readonly string[] {
  const { sha256, tool, reference, signedBy } = certificate;
  const issued = isDeepStrictEqual(limits, certificate.limits)
    ? []
    : wrapParts(certifiedText(certificate), wide);
  const claims = [
    `by ${escapeControls(tool)}`,
    reference ? "logits of other software matched" : "not compared with other software",
    signedBy === null ? "unsigned" : `signed by key ${signedBy}`,
  ];
  return [sha256, claims.join(", "), ...issued];
}

function bundleText({ signedBy, issuer, files }: NonNullable<VerifyReport["bundle"]>): string[] {
  const who =
    issuer === null
      ? `key ${signedBy}`
      : `${escapeControls(signedBy)}, confirmed by ${escapeControls(issuer)}`;
  return [who, `${formatQuantity(files, "file")} signed`];
}

/** Content roots of two sides; empty if the bytes rung computed none. */
export function rootLines(
  a: string | null,
  b: string | null,
  sides: readonly [a: string, b: string],
): readonly string[] {
  if (a === null && b === null) return [];
  if (a === b) return [`${a}, both sides`];
  return [`${a ?? "unknown"}, ${sides[0]}`, `${b ?? "unknown"}, ${sides[1]}`];
}
