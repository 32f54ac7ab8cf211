/** SARIF 2.1.0: problems as results that code scanning shows, each with a stable rule and a fingerprint. */
import { createHash } from "node:crypto";
import { isAbsolute, posix, relative } from "node:path";
import type { Log, PropertyBag, ReportingDescriptor, Result } from "sarif";
import { visible } from "../core/figures.ts";
import type { Severity } from "../index.ts";
import { version } from "../version.ts";
import { jsonText } from "./json.ts";
import { gravest, type Problem, problemsOf, RULES } from "./problems.ts";
import { commandOf, headlineOf, type Subject } from "./subject.ts";

/** As many as GitHub's code scanning shows of one run. */
const MAX_RESULTS = 5000;

const LEVELS = {
  note: "note",
  warning: "warning",
  error: "error",
  danger: "error",
} as const satisfies Record<Severity, Result.level>;

/** Code that runs on reading is as grave as a finding gets (CVSS scale, as code scanning sorts by it). */
const DANGER: PropertyBag = { tags: ["security"], "security-severity": "9.8" };

/** @param root absolute folder that locations are relative to: the checked out repository, in CI */
export function sarifText(subject: Subject, root: string): string {
  const { shown, leftOut } = gravest(problemsOf(subject), MAX_RESULTS);
  const ids = [...new Set(shown.map(({ rule }) => rule))].sort();
  const { word, tone } = headlineOf(subject);
  const seen = new Map<string, number>();
  const log: Log = {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [
      {
        tool: {
          driver: { name: "isologit", version, rules: ids.map((id) => ruleOf(id, shown)) },
        },
        automationDetails: { id: `isologit/${commandOf(subject)}/` },
        invocations: [
          {
            executionSuccessful: subject.command !== "stopped",
            toolExecutionNotifications:
              leftOut === 0
                ? []
                : [{ level: "warning", message: { text: `${leftOut} more problems are not listed here` } }],
          },
        ],
        results: shown.map((problem) => resultOf(problem, ids.indexOf(problem.rule), root, seen)),
        properties: { verdict: word, passed: tone === "good" },
      },
    ],
  };
  return jsonText(log);
}

function ruleOf(id: string, problems: readonly Problem[]): ReportingDescriptor {
  const { severity } = problems.find(({ rule }) => rule === id)!;
  const text = RULES[id] ?? id.replaceAll("-", " ");
  return {
    id,
    shortDescription: { text },
    defaultConfiguration: { level: LEVELS[severity] },
    ...(severity === "danger" && { properties: DANGER }),
  };
}

function resultOf(problem: Problem, ruleIndex: number, root: string, seen: Map<string, number>): Result {
  const { rule, severity, message, tensor, offset } = problem;
  const uri = uriOf(problem, root);
  const region = offset === null ? { startLine: 1 } : { startLine: 1, byteOffset: offset };
  const logical =
    tensor === null ? {} : { logicalLocations: [{ fullyQualifiedName: visible(tensor), kind: "member" }] };
  const fingerprint = fingerprintOf([rule, uri, tensor ?? "", message], seen);
  return {
    ruleId: rule,
    ruleIndex,
    level: LEVELS[severity],
    message: { text: visible(tensor === null ? message : `${tensor}: ${message}`) },
    locations: [{ physicalLocation: { artifactLocation: { uri }, region }, ...logical }],
    // the first is ours, and GitHub goes by the second
    partialFingerprints: { "isologit/v1": fingerprint, primaryLocationLineHash: fingerprint },
  };
}

/** The same problem on the next run has the same one; numbers in messages may move with the weights. */
function fingerprintOf([rule, uri, tensor, message]: readonly string[], seen: Map<string, number>): string {
  const told = [rule, uri, tensor, message!.replace(/\d[\d.e+-]*/g, "#")].join("\0");
  const digest = createHash("sha256").update(told).digest("hex").slice(0, 32);
  const count = (seen.get(digest) ?? 0) + 1;
  seen.set(digest, count);
  return `${digest}:${count}`;
}

/**
 * A file as a relative reference, forward slashes, percent-encoded. Of what lies outside `root` only the last name
 * is left: where a checkpoint lies on this machine is nobody's business.
 */
function uriOf({ address, file }: Problem, root: string): string {
  const path = placeOf(address, file);
  const inside = (isAbsolute(path) ? relative(root, path) : posix.normalize(path)).replaceAll("\\", "/");
  const kept = inside.startsWith("../") ? posix.basename(inside) : inside;
  const names = kept.split("/").filter((name) => name !== "" && name !== "." && name !== "..");
  // by way of bytes, for `encodeURIComponent` throws at half of a surrogate pair
  return names.map((name) => encodeURIComponent(Buffer.from(name).toString())).join("/") || "checkpoint";
}

/** Findings name a file of the checkpoint, or the checkpoint itself. */
export function placeOf(address: string, file: string | null): string {
  const whole = address.replace(/\/+$/, "");
  if (file === null || file.startsWith("/") || file === whole || posix.basename(whole) === file) {
    return file?.startsWith("/") ? file : whole;
  }
  return file.startsWith(`${whole}/`) ? file : `${whole}/${file}`;
}
