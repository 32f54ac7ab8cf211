/** SARIF 2.1.0: problems as results for code scanning, each with a stable rule and a fingerprint. */
import { createHash } from "node:crypto";
import { isAbsolute, posix, relative } from "node:path";
import type { Log, PropertyBag, ReportingDescriptor, Result } from "sarif";
import { escapeControls } from "../core/figures.ts";
import type { Severity } from "../index.ts";
import { version } from "../version.ts";
import { jsonText } from "./json.ts";
import { type Problem, problemsOf, RULES, selectGravest } from "./problems.ts";
import { commandOf, headlineOf, judgedAddress, pluginsOf, type Subject } from "./subject.ts";

/** GitHub's code scanning shows at most this many results of one run. */
const MAX_RESULTS = 5000;

const LEVELS = {
  note: "note",
  warning: "warning",
  error: "error",
  danger: "error",
} as const satisfies Record<Severity, Result.level>;

/** Code that runs when a file is read is the most severe kind of finding (CVSS scale; code scanning sorts by it). */
const DANGER: PropertyBag = { tags: ["security"], "security-severity": "9.8" };

/** @param root absolute folder that locations are relative to: the checked out repository, in CI */
export function sarifText(subject: Subject, root: string): string {
  const { shown, leftOut } = selectGravest(problemsOf(subject), MAX_RESULTS);
  const ids = [...new Set(shown.map(({ rule }) => rule))].sort();
  const { word, tone } = headlineOf(subject);
  const plugins = [...pluginsOf(subject)];
  const seen = new Map<string, number>();
  const log: Log = {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [
      {
        tool: {
          driver: { name: "isologit", version, rules: ids.map((id) => ruleOf(id, shown)) },
        },
        automationDetails: {
          id: `isologit/${commandOf(subject)}/${relativeUri(judgedPlace(subject), root)}/`,
        },
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
        properties: { verdict: word, passed: tone === "good", ...(plugins.length > 0 && { plugins }) },
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
    tensor === null
      ? {}
      : { logicalLocations: [{ fullyQualifiedName: escapeControls(tensor), kind: "member" }] };
  const fingerprint = fingerprintOf([rule, uri, tensor ?? "", message], seen);
  return {
    ruleId: rule,
    ruleIndex,
    level: LEVELS[severity],
    message: { text: escapeControls(tensor === null ? message : `${tensor}: ${message}`) },
    locations: [
      { physicalLocation: { artifactLocation: { uri, uriBaseId: "%SRCROOT%" }, region }, ...logical },
    ],
    // the first name is ours; GitHub uses the second
    partialFingerprints: { "isologit/v1": fingerprint, primaryLocationLineHash: fingerprint },
  };
}

/** Equal for the same problem in the next run: numbers in messages are left out, since they change with weights. */
function fingerprintOf([rule, uri, tensor, message]: readonly string[], seen: Map<string, number>): string {
  const text = [rule, uri, tensor, message!.replace(/\d[\d.e+-]*/g, "#")].join("\0");
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 32);
  const count = (seen.get(digest) ?? 0) + 1;
  seen.set(digest, count);
  return `${digest}:${count}`;
}

/** The address of the checkpoint that a run judges: the same if the run passes, fails or stops. */
function judgedPlace(subject: Subject): string {
  switch (subject.command) {
    case "convert":
    case "recast":
      return subject.report.destination.path;
    case "stopped":
      return subject.addresses.at(-1) ?? "";
    default:
      return judgedAddress(subject);
  }
}

const uriOf = ({ address, file }: Problem, root: string): string => relativeUri(placeOf(address, file), root);

/**
 * A path as a relative URI. For a path outside `root` only the last name is used, so that a report does not reveal
 * folders of this machine.
 */
function relativeUri(path: string, root: string): string {
  const inside = (isAbsolute(path) ? relative(root, path) : posix.normalize(path)).replaceAll("\\", "/");
  const shown = inside.startsWith("../") ? posix.basename(inside) : inside;
  const names = shown.split("/").filter((name) => name !== "" && name !== "." && name !== "..");
  // by way of bytes, because `encodeURIComponent` throws at half of a surrogate pair
  return names.map((name) => encodeURIComponent(Buffer.from(name).toString())).join("/") || "checkpoint";
}

/** The path of a finding, which names a file of the checkpoint or the checkpoint itself. */
export function placeOf(address: string, file: string | null): string {
  const whole = address.replace(/\/+$/, "");
  if (file === null || file.startsWith("/") || file === whole || posix.basename(whole) === file) {
    return file?.startsWith("/") ? file : whole;
  }
  return file.startsWith(`${whole}/`) ? file : `${whole}/${file}`;
}
