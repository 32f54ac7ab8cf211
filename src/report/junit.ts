/** JUnit XML: a test case for every rung, layer, tensor and control, or for every finding or difference. */
import { basename } from "node:path";
import { formatMeasure } from "../core/figures.ts";
import type { ComparedTensor, LayerDrift, VerifyReport } from "../index.ts";
import { escapeMarkup } from "./escape.ts";
import { comparedLogits, measureTexts } from "./measures.ts";
import { divergenceText, type Problem, problemsOf, selectGravest } from "./problems.ts";
import { commandOf, headlineOf, type RunTimes, type Subject, verificationOf } from "./subject.ts";

interface Case {
  readonly name: string;
  /** `skipped`: the case could not fail */
  readonly outcome: "passed" | "failed" | "skipped" | "error";
  readonly type?: string;
  readonly message?: string;
  /** print the message also if the case passed */
  readonly printed?: boolean;
  readonly seconds?: number;
}

interface Suite {
  readonly name: string;
  readonly cases: readonly Case[];
}

/** Servers fail to show more cases of one suite; the most severe problems come first. */
const MAX_CASES = 5000;

/** @param times the cases whose time is known get it; together they are the time of the run */
export function junitText(subject: Subject, times?: RunTimes): string {
  const command = commandOf(subject);
  const suites = suitesOf(subject, times).filter(({ cases }) => cases.length > 0);
  const lines = suites.flatMap(({ name, cases }) => [
    `  <testsuite name="${escapeMarkup(name)}"${counts(cases)}>`,
    ...distinguish(cases).map((one) => caseText(one, `isologit.${command}.${name}`)),
    "  </testsuite>",
  ]);
  const head = `<testsuites name="${escapeMarkup(`isologit ${command}`)}"${counts(suites.flatMap(({ cases }) => cases))}>`;
  return ['<?xml version="1.0" encoding="UTF-8"?>', head, ...lines, "</testsuites>", ""].join("\n");
}

/** Servers join cases of equal names, so the second and every further one gets a number. */
function distinguish(cases: readonly Case[]): readonly Case[] {
  const seen = new Map<string, number>();
  return cases.map((one) => {
    const count = (seen.get(one.name) ?? 0) + 1;
    seen.set(one.name, count);
    return count === 1 ? one : { ...one, name: `${one.name} (${count})` };
  });
}

function counts(cases: readonly Case[]): string {
  const of = (outcome: Case["outcome"]) => cases.filter((one) => one.outcome === outcome).length;
  return ` tests="${cases.length}" failures="${of("failed")}" errors="${of("error")}" skipped="${of("skipped")}"`;
}

function caseText(
  { name, outcome, type = outcome, message = "", printed = false, seconds }: Case,
  group: string,
): string {
  const time = seconds === undefined ? "" : ` time="${seconds.toFixed(3)}"`;
  const open = `    <testcase classname="${escapeMarkup(group)}" name="${escapeMarkup(name)}"${time}`;
  if (outcome === "passed") {
    return printed ? `${open}><system-out>${escapeMarkup(message)}</system-out></testcase>` : `${open}/>`;
  }
  const tag = { failed: "failure", error: "error", skipped: "skipped" }[outcome];
  const kind = outcome === "skipped" ? "" : ` type="${escapeMarkup(type)}"`;
  return `${open}><${tag}${kind} message="${escapeMarkup(message)}"/></testcase>`;
}

function suitesOf(subject: Subject, times: RunTimes | undefined): readonly Suite[] {
  const { word, meaning, tone } = headlineOf(subject);
  const verification = verificationOf(subject);
  const rungs = times?.rungs ?? {};
  const rest = times && times.whole - Object.values(rungs).reduce((sum, seconds) => sum + seconds, 0);
  const timed = rest === undefined ? {} : { seconds: Math.max(0, rest) };
  if (verification !== null) {
    const outcome = tone === "good" ? "passed" : "failed";
    const whole: Case = { name: "verdict", outcome, type: word, message: meaning, printed: true, ...timed };
    return [
      { name: "verdict", cases: [whole] },
      ...verificationSuites(verification, problemsOf(subject), rungs),
    ];
  }
  if (subject.command === "stopped") {
    const cases = problemsOf(subject).map(({ rule, message }): Case => {
      return { name: word, outcome: "error", type: rule, message, ...timed };
    });
    return [{ name: "command", cases }];
  }
  const { shown, leftOut } = selectGravest(problemsOf(subject), MAX_CASES);
  const whole: Case = {
    name: "verdict",
    outcome: tone === "bad" ? "failed" : "passed",
    type: word,
    message: leftOut === 0 ? meaning : `${meaning}; ${leftOut} more problems are not listed`,
    printed: true,
    ...timed,
  };
  return [
    { name: "verdict", cases: [whole] },
    { name: "problems", cases: shown.map(problemCase) },
  ];
}

/**
 * Notes and warnings do not fail a build, as they do not fail a command. The name is the same in the next run and in another
 * folder, so that servers can follow the case.
 */
function problemCase({ rule, severity, message, address, file, tensor, offset }: Problem): Case {
  const outcome = severity === "note" || severity === "warning" ? "passed" : "failed";
  const name = [rule, file === null ? null : fileIn(address, file), tensor].filter(Boolean).join(", ");
  const place = offset === null ? "" : `, at byte ${offset}`;
  return { name, outcome, type: rule, message: `${message}${place}`, printed: true };
}

/** The path of a file within the checkpoint; "" for the checkpoint itself. */
function fileIn(address: string, file: string): string {
  const whole = address.replace(/\/+$/, "");
  if (file === whole || file === address) return "";
  return file.startsWith(`${whole}/`)
    ? file.slice(whole.length + 1)
    : file.startsWith("/")
      ? basename(file)
      : file;
}

function verificationSuites(
  report: VerifyReport,
  problems: readonly Problem[],
  seconds: RunTimes["rungs"],
): readonly Suite[] {
  const { layers = [], wiring, controls = [] } = comparedLogits(report) ?? {};
  const why = new Map(problems.map(({ rule, tensor, message }) => [`${rule} ${tensor}`, message]));
  return [
    {
      name: "rungs",
      cases: report.rungs.map((rung) => ({
        name: rung.rung,
        outcome: rung.verdict === "same" || rung.verdict === "within" ? "passed" : "failed",
        type: rung.verdict,
        message: measureTexts(rung).join(", "),
        ...(seconds[rung.rung] !== undefined && { seconds: seconds[rung.rung]! }),
      })),
    },
    { name: "layers", cases: layers.map((layer) => layerCase(layer, wiring?.limit ?? 0, report)) },
    {
      name: "tensors",
      cases: tensorsOf(report).map(({ role, layer, b, outcome }) => ({
        name: b,
        outcome: outcome === "different" ? "failed" : "passed",
        type: "tensor-differs",
        message:
          why.get(`tensor-differs ${b}`) ?? `${role}${layer === null ? "" : ` of layer ${layer}`} differs`,
      })),
    },
    {
      name: "controls",
      cases: controls.map(({ layer, kind, door, mutation, caught }) => ({
        name: `layer ${layer} (${kind}), ${door}: ${mutation}`,
        outcome: caught === null ? "skipped" : caught ? "passed" : "failed",
        type: "control-missed",
        message:
          caught === null ? "the exchanged parts are equal" : "the comparison did not detect this exchange",
      })),
    },
    { name: "findings", cases: findingsAmong(report, problems).map(problemCase) },
  ];
}

/** The problems that are findings, differences first. */
function findingsAmong({ findingDetails }: VerifyReport, problems: readonly Problem[]): readonly Problem[] {
  const messages = new Set(findingDetails.map(({ rule, message }) => `${rule} ${message}`));
  const found = problems.filter(({ rule, message }) => messages.has(`${rule} ${message}`));
  return selectGravest(found, MAX_CASES).shown;
}

/** If there are too many, the tensors that differ come first. */
function tensorsOf({ tensors = [] }: VerifyReport): readonly ComparedTensor[] {
  if (tensors.length <= MAX_CASES) return tensors;
  const differing = tensors.filter(({ outcome }) => outcome === "different");
  const others = tensors.filter(({ outcome }) => outcome !== "different");
  return [...differing, ...others].slice(0, MAX_CASES);
}

function layerCase(drift: LayerDrift, limit: number, { firstDivergence: first }: VerifyReport): Case {
  const { layer, kind, driftRelL2, localRelL2 } = drift;
  const name = `layer ${layer} (${kind})`;
  if (first?.layer === layer) {
    return { name, outcome: "failed", type: "first-divergence", message: divergenceText(first) };
  }
  const message = `own error ${formatMeasure(localRelL2)}, limit ${formatMeasure(limit)} relative L2; drift ${formatMeasure(driftRelL2)}`;
  return { name, outcome: localRelL2 <= limit ? "passed" : "failed", type: "wiring", message };
}
