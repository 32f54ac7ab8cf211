/** What a report is about: which command ran on which checkpoints, and what came of it. */

import { bytes, counted, grouped } from "../core/figures.ts";
import type { ConvertReport, DiffReport, FindingsReport, Verdict, VerifyReport } from "../index.ts";
import { MEANINGS } from "./measures.ts";

export type Subject =
  | {
      readonly command: "verify";
      readonly a: string;
      /** null: a was held to its certificate */
      readonly b: string | null;
      readonly report: VerifyReport;
    }
  | { readonly command: "convert" | "recast"; readonly report: ConvertReport }
  | { readonly command: "check" | "scan"; readonly address: string; readonly report: FindingsReport }
  | { readonly command: "diff"; readonly a: string; readonly b: string; readonly report: DiffReport }
  | Stopped;

/** A command that came to no result. */
export interface Stopped {
  readonly command: "stopped";
  /** the command that ran, and the checkpoints that it was given */
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

/** The verification inside, if there is one. */
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

/** The checkpoint that is judged: what is found lies there. */
export function judged(subject: Subject): string {
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

/** `open`: neither good nor bad is known. */
export type Tone = "good" | "bad" | "open";

export interface Headline {
  /** one word, as scripts know it */
  readonly word: string;
  readonly meaning: string;
  readonly tone: Tone;
}

const TONES = { same: "good", within: "good", different: "bad", unproven: "open" } as const satisfies Record<
  Verdict,
  Tone
>;

export function headlineOf(subject: Subject): Headline {
  switch (subject.command) {
    case "verify":
      return verdictLine(subject.report.verdict);
    case "convert":
    case "recast": {
      const { verification } = subject.report;
      if (verification !== null) return verdictLine(verification.verdict);
      return { word: "unverified", meaning: "written, and not verified, as --verify off asks", tone: "open" };
    }
    case "check":
      return subject.report.ok
        ? { word: "sound", meaning: "the checkpoint hangs together", tone: "good" }
        : { word: "unsound", meaning: "the checkpoint does not hang together", tone: "bad" };
    case "scan":
      return subject.report.ok
        ? { word: "clean", meaning: "nothing here runs code by being read", tone: "good" }
        : { word: "unsafe", meaning: "do not load this with software that unpickles", tone: "bad" };
    case "diff":
      return subject.report.equal
        ? { word: "equal", meaning: "no tensor, setting or side file differs", tone: "good" }
        : { word: "different", meaning: "the two checkpoints differ", tone: "bad" };
    case "stopped":
      return { word: "stopped", meaning: "the command came to no result", tone: "bad" };
    default:
      return subject satisfies never;
  }
}

const verdictLine = (verdict: Verdict): Headline => ({
  word: verdict,
  meaning: MEANINGS[verdict],
  tone: TONES[verdict],
});

/** What was compared, how and with what: label and value, in the order in which they are read. */
export function factsOf(subject: Subject): readonly (readonly [label: string, value: string])[] {
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
        ["source", source.address],
        [staged === undefined ? "written" : "staged", staged ?? destination.path],
        ["format", `${source.format} to ${destination.format}, ${bytes(destination.bytes)}`],
        ["values", report.exact ? "exact: every bit is kept" : "recast: rounded once"],
        ...rootFacts(source.root, destination.root),
        ["plan", report.plan],
        ...(report.verification === null ? [] : machineFacts(report.verification)),
      ];
    }
    case "check":
    case "scan":
      return [
        ["checkpoint", subject.address],
        ["found", counted(subject.report.findings.length, "finding")],
      ];
    case "diff": {
      const { tensors } = subject.report;
      const equal = tensors.filter((tensor) => tensor.equal).length;
      return [
        ["A", subject.a],
        ["B", subject.b],
        ["equal", `${grouped(equal)} of ${counted(tensors.length, "role")}`],
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

function machineFacts({ backend, device }: VerifyReport): [string, string][] {
  return [["run on", backend === null ? "no forward pass" : `${backend}, ${device}`]];
}
