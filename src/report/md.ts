/** Markdown for the summary of a CI step: verdict, rungs, first divergence, limits, problems. */
import { escapeControls } from "../core/figures.ts";
import type { VerifyReport } from "../index.ts";
import { limitTexts, measureTexts } from "./measures.ts";
import { divergenceText, type Problem, problemsOf, selectGravest } from "./problems.ts";
import { commandOf, factsOf, headlineOf, type Subject, type Tone, verificationOf } from "./subject.ts";

/** A summary may have at most 1 MiB, and nobody reads a thousand rows. */
const MAX_ROWS = 100;
const MAX_CELL = 400;

/** Rules that have their own paragraph or table. */
const SHOWN_ABOVE = /^(rung-|first-divergence$)/;

const MARKS: Readonly<Record<Tone, string>> = { good: "✅", bad: "❌", open: "⚠️" };

export function mdText(subject: Subject): string {
  const { word, meaning, tone } = headlineOf(subject);
  const verification = verificationOf(subject);
  return [
    `## ${MARKS[tone]} isologit ${commandOf(subject)}: ${word}`,
    "",
    `${meaning[0]!.toUpperCase()}${meaning.slice(1)}.`,
    "",
    ...tableOf(
      ["", ""],
      factsOf(subject).map(([label, value]) => [label, cell(value)]),
    ),
    ...(verification === null ? [] : verificationLines(verification)),
    ...problemLines(problemsOf(subject).filter(({ rule }) => !SHOWN_ABOVE.test(rule))),
  ].join("\n");
}

function verificationLines(report: VerifyReport): string[] {
  const { rungs, firstDivergence: first } = report;
  const rows = rungs.map((rung) => [rung.rung, `**${rung.verdict}**`, cell(measureTexts(rung).join(", "))]);
  const suspects = first?.tensors.slice(0, 10).map((tensor) => `- ${code(tensor)}`) ?? [];
  const bounds = limitTexts(report).join(", ");
  return [
    ...tableOf(["rung", "verdict", "measured"], rows),
    ...(first === null ? [] : [`**${capital(cell(divergenceText(first)))}**`, "", ...suspects, ""]),
    ...(bounds === "" ? [] : [`Limits: ${bounds}.`, ""]),
  ];
}

function problemLines(problems: readonly Problem[]): string[] {
  if (problems.length === 0) return [];
  const { shown, leftOut } = selectGravest(problems, MAX_ROWS);
  const rows = shown.map(({ rule, severity, message, file, tensor, offset }) => {
    const names = [file, tensor].filter((part) => part !== null && part !== "").map((part) => code(part!));
    const place = [...names, ...(offset === null ? [] : [`byte ${offset}`])];
    return [severity, code(rule), cell(message), place.join(", ")];
  });
  const more = leftOut === 0 ? [] : [`…and ${leftOut} more.`, ""];
  return [...tableOf(["severity", "rule", "message", "location"], rows), ...more];
}

function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  if (rows.length === 0) return [];
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line), ""];
}

const capital = (text: string): string => text[0]!.toUpperCase() + text.slice(1);

const shorten = (text: string): string =>
  escapeControls(text.length > MAX_CELL ? `${text.slice(0, MAX_CELL)}…` : text);

/**
 * Untrusted text in a cell: no Markdown, no HTML, no mention, no link, no further cell. Readable also as plain text: an
 * underscore between two letters has no meaning.
 */
function cell(text: string): string {
  return shorten(text)
    .replace(/[\\`*[\]#|~$]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])|:(?=\/\/)/g, "\\$&")
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/@/g, "&#64;");
}

/** An untrusted name as code, in which only backticks and, in a table, bars have a meaning. */
function code(name: string): string {
  const text = shorten(name).replaceAll("|", "\\|");
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  const space = /^`|`$/.test(text) ? " " : "";
  return `${fence}${space}${text}${space}${fence}`;
}
