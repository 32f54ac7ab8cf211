/** A verification as a person reads it: the verdict, then each rung with the numbers it rests on. */
import { isDeepStrictEqual } from "node:util";
import { counted, visible } from "../core/figures.ts";
import type { Verdict, VerifyReport } from "../index.ts";
import { certifiedText, limitText, MEANINGS, measures } from "../report/measures.ts";
import { gravest, objections } from "../report/problems.ts";
import { facts, flow, type Paint, some, type View } from "./render.ts";

const COLOURS = { same: "green", within: "green", different: "red", unproven: "yellow" } as const;

const painted = (paint: Paint, verdict: Verdict): string => paint(COLOURS[verdict], verdict);

/** Columns that labels take in the facts around it. */
const LABELS = 18;

export function verificationText(report: VerifyReport, view: View): string[] {
  const { paint } = view;
  const wide = view.width - LABELS;
  const worded = (text: string) => flow(visible(text).split(" "), wide, " "); // broken between words
  const most = view.verbose ? Number.POSITIVE_INFINITY : 4;
  const { backend, device, firstDivergence: first } = report;
  const told = new Set(report.rungs.flatMap(objections));
  const untold = report.findingDetails.filter(({ message }) => !told.has(message));
  return facts(view, [
    ["verdict", `${painted(paint, report.verdict)}: ${MEANINGS[report.verdict]}`],
    ["run on", backend === null ? "no forward pass" : worded(`${backend}, ${device}`)],
    ...report.rungs.map((rung): [string, string[]] => [
      rung.rung,
      [
        ...flow([painted(paint, rung.verdict), ...measures(rung)], wide),
        ...some(objections(rung).map(visible), most),
      ],
    ]),
    ["certificate", report.certificate === null ? null : certificateText(report.certificate, report, wide)],
    ["bundle", report.bundle === undefined ? null : bundleText(report.bundle)],
    ["limits", flow(Object.entries(report.limits).map(limitText), wide)],
    [
      "first divergence",
      first === null
        ? null
        : [
            `layer ${first.layer} (${first.kind})${first.door === undefined ? "" : `, door ${visible(first.door)}`}`,
            ...some(first.tensors.map(visible), most),
          ],
    ],
    ...gravest(untold, untold.length).shown.map(({ severity, message }): [string, string[]] => [
      severity === "note" ? "remark" : "difference",
      worded(message),
    ]),
  ]);
}

/** A certificate that this run issued was issued under the limits that are printed below. */
function certificateText(
  certificate: NonNullable<VerifyReport["certificate"]>,
  { limits }: VerifyReport,
  wide: number,
): readonly string[] {
  const { sha256, tool, reference, signedBy } = certificate;
  const issued = isDeepStrictEqual(limits, certificate.limits) ? [] : flow(certifiedText(certificate), wide);
  const claims = [
    `by ${visible(tool)}`,
    reference ? "other software's logits met" : "no other software asked",
    signedBy === null ? "unsigned" : `signed by key ${signedBy}`,
  ];
  return [sha256, claims.join(", "), ...issued];
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
