/** The subject of a report: a command, its checkpoints and its result. */
import { formatBytes, formatCount, formatQuantity } from "../core/figures.ts";
import type {
  ConvertReport,
  DiffReport,
  FindingsReport,
  PluginsReport,
  ShapeSearch,
  Verdict,
  VerifyReport,
} from "../index.ts";
import { MEANINGS, machineFacts } from "./measures.ts";
import { valuesText } from "./recast-errors.ts";

export type Subject =
  | {
      readonly command: "verify";
      readonly a: string;
      /** null: A was compared with its certificate */
      readonly b: string | null;
      readonly report: VerifyReport;
      /** B is a part of A, and this search chose its shape */
      readonly search?: ShapeSearch;
    }
  | { readonly command: "convert" | "recast"; readonly report: ConvertReport }
  | {
      readonly command: "check" | "scan";
      readonly address: string;
      readonly report: FindingsReport & PluginsReport;
    }
  | { readonly command: "diff"; readonly a: string; readonly b: string; readonly report: DiffReport }
  | Stopped;

/** How long a run took, and each of its rungs, in seconds. A rung lasts from the end of the one before it. */
export interface RunTimes {
  readonly whole: number;
  readonly rungs: Readonly<Record<string, number>>;
}

/** A command that ended without a result. */
export interface Stopped {
  readonly command: "stopped";
  /** the command and its arguments */
  readonly ran: string;
  readonly addresses: readonly string[];
  readonly report: {
    readonly error: {
      readonly code: string;
      readonly message: string;
      readonly at: {
        readonly file?: string;
        readonly tensor?: string;
        readonly offset?: number;
        readonly index?: number;
      };
      readonly next: string;
    };
  };
}

export const commandOf = (subject: Subject): string =>
  subject.command === "stopped" ? subject.ran : subject.command;

/** The verification in the report, if there is one. */
export function verificationOf(subject: Subject): VerifyReport | null {
  switch (subject.command) {
    case "verify":
      return subject.report;
    case "convert":
    case "recast":
      return subject.report.verification;
    case "check":
    case "scan":
    case "diff":
    case "stopped":
      return null;
    default:
      return subject satisfies never;
  }
}

/** The address of the checkpoint that is judged: locations of findings are inside it. */
export function judgedAddress(subject: Subject): string {
  switch (subject.command) {
    case "verify":
      return subject.b ?? subject.a;
    case "convert":
    case "recast":
      return subject.report.staged ?? subject.report.destination.path;
    case "check":
    case "scan":
      return subject.address;
    case "diff":
      return subject.b;
    case "stopped":
      return subject.addresses[0] ?? "";
    default:
      return subject satisfies never;
  }
}

/** `open`: the result is neither good nor bad. */
export type Tone = "good" | "bad" | "open";

interface Headline {
  /** one word that scripts can rely on */
  readonly word: string;
  readonly meaning: string;
  readonly tone: Tone;
}

/** The tone of each verdict. */
export const TONES = {
  same: "good",
  within: "good",
  different: "bad",
  unproven: "open",
} as const satisfies Record<Verdict, Tone>;

export function headlineOf(subject: Subject): Headline {
  switch (subject.command) {
    case "verify":
      return verdictLine(subject.report.verdict);
    case "convert":
    case "recast": {
      const { verification } = subject.report;
      if (verification !== null) return verdictLine(verification.verdict);
      return {
        word: "unverified",
        meaning: "written and not verified, because of --verify off",
        tone: "open",
      };
    }
    case "check":
      return subject.report.ok
        ? { word: "sound", meaning: "the checkpoint has no errors", tone: "good" }
        : { word: "unsound", meaning: "the checkpoint has errors", tone: "bad" };
    case "scan":
      return subject.report.ok
        ? { word: "clean", meaning: "reading this runs no code", tone: "good" }
        : { word: "unsafe", meaning: "do not load this with software that reads pickles", tone: "bad" };
    case "diff":
      return subject.report.equal
        ? { word: "equal", meaning: "no tensor, setting or side file differs", tone: "good" }
        : { word: "different", meaning: "the two checkpoints differ", tone: "bad" };
    case "stopped":
      return { word: "stopped", meaning: "the command ended without a result", tone: "bad" };
    default:
      return subject satisfies never;
  }
}

const verdictLine = (verdict: Verdict): Headline => ({
  word: verdict,
  meaning: MEANINGS[verdict],
  tone: TONES[verdict],
});

/** A label and a value. */
type Fact = readonly [label: string, value: string];

/** Facts about the run. */
export const factsOf = (subject: Subject): readonly Fact[] => [
  ...commandFacts(subject),
  ...pluginsOf(subject).map((plugin): Fact => ["plug-in", plugin]),
];

/** Names and versions of the plug-ins that took part. */
export const pluginsOf = ({ report }: Subject): readonly string[] =>
  ("plugins" in report ? report.plugins : undefined) ?? [];

function commandFacts(subject: Subject): readonly Fact[] {
  switch (subject.command) {
    case "verify": {
      const sides: [string, string][] =
        subject.b === null
          ? [["checkpoint", subject.a]]
          : [
              ["A", subject.a],
              ["B", subject.b],
            ];
      const { a, b } = subject.report.roots;
      return [...sides, ...rootFacts(a, b), ...machineFacts(subject.report)];
    }
    case "convert":
    case "recast": {
      const { source, destination, staged, ...report } = subject.report;
      return [
        ["source (A)", source.address],
        [staged === undefined ? "written (B)" : "staged (B)", staged ?? destination.path],
        ["format", `${source.format} to ${destination.format}, ${formatBytes(destination.bytes)}`],
        ["values", valuesText(report)],
        ...rootFacts(source.root, destination.root),
        ["plan", report.plan],
        ...(report.verification === null ? [] : machineFacts(report.verification)),
      ];
    }
    case "check":
    case "scan":
      return [
        ["checkpoint", subject.address],
        ["found", formatQuantity(subject.report.findings.length, "finding")],
      ];
    case "diff": {
      const { tensors } = subject.report;
      const equal = tensors.filter((tensor) => tensor.equal).length;
      return [
        ["A", subject.a],
        ["B", subject.b],
        ["equal", `${formatCount(equal)} of ${formatQuantity(tensors.length, "role")}`],
      ];
    }
    case "stopped":
      return [
        ["command", `isologit ${subject.ran} ${subject.addresses.join(" ")}`],
        ["error", `${subject.report.error.code}: ${subject.report.error.message}`],
        ["next", subject.report.error.next],
      ];
    default:
      return subject satisfies never;
  }
}

function rootFacts(a: string | null, b: string | null): [string, string][] {
  if (a === null && b === null) return [];
  if (a === b) return [["content root", `${a}, both sides`]];
  return [
    ["root of A", a ?? "unknown"],
    ["root of B", b ?? "unknown"],
  ];
}
