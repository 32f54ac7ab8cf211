/** Aligned columns, durations, and colour on a terminal. */
import { stripVTControlCharacters, styleText } from "node:util";
import { formatBytes, formatCount } from "../core/figures.ts";
import type { Io, Output } from "./io.ts";
import type { Flags } from "./options.ts";

type Colour = "bold" | "dim" | "red" | "green" | "yellow";
export type Paint = (colour: Colour, text: string) => string;

/** What a phase took. */
export interface PhaseTime {
  readonly phase: string;
  readonly seconds: number;
  /** 0: the phase counts no bytes */
  readonly bytes: number;
}

/** How a report is printed. */
export interface View {
  readonly paint: Paint;
  /** columns */
  readonly width: number;
  readonly verbose: boolean;
  readonly quiet: boolean;
  /** what the run spent its time on */
  readonly phases: readonly PhaseTime[];
}

const WIDEST = 100;
/** columns of a file or a pipe */
const USUAL = 80;

/** Whether the terminal understands no control sequences. */
export const isDumb = ({ env }: Pick<Io, "env">): boolean => env.TERM === "dumb";

/** Colour only on a terminal that understands it, and not where NO_COLOR is set (no-color.org: set and not empty). */
export function paintFor(output: Output, env: Io["env"]): Paint {
  if (!output.isTTY || env.NO_COLOR || isDumb({ env })) return (_, text) => text;
  return (colour, text) => styleText(colour, text, { validateStream: false }); // `isTTY` was checked above
}

export function viewOf(io: Io, { verbose = false, quiet = false }: Flags, phases: View["phases"]): View {
  const width = Math.max(60, Math.min(io.stdout.columns ?? USUAL, WIDEST));
  return { paint: paintFor(io.stdout, io.env), width, verbose, quiet, phases };
}

/** `0.42 s`, `12.3 s`, `4 min 05 s`, `2 h 07 min`. */
export function formatDuration(duration: number): string {
  if (duration < 9.995) return `${duration.toFixed(2)} s`;
  if (duration < 59.95) return `${duration.toFixed(1)} s`;
  const whole = Math.round(duration);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const two = (value: number) => String(value).padStart(2, "0");
  return hours > 0 ? `${hours} h ${two(minutes)} min` : `${minutes} min ${two(whole % 60)} s`;
}

/** Bytes per second. */
export function formatRate(count: number, duration: number): string {
  return duration > 0 ? `${formatBytes(Math.round(count / duration))}/s` : "too short to measure";
}

const lengthOf = (cell: string): number => stripVTControlCharacters(cell).length;

/**
 * Rows of cells as aligned lines, with two spaces between columns and no spaces at the end.
 *
 * @param align one letter per column, `l` or `r`; the other columns are `l`
 */
export function alignRows(rows: readonly (readonly string[])[], align = ""): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, lengthOf(cell));
    });
  }
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const blanks = " ".repeat(widths[column]! - lengthOf(cell));
        return align[column] === "r" ? blanks + cell : cell + blanks;
      })
      .join("  ")
      .trimEnd(),
  );
}

/** A table whose head differs in colour only. */
export function tableWithHead(
  view: View,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  align = "",
): string[] {
  return alignRows([head.map((title) => view.paint("dim", title)), ...rows], align);
}

/** Columns that the labels of a fact table take. */
export const LABELS = 18;

/** Labels and values; a value may have several lines. Rows without a value are left out. */
export function factTable(
  view: View,
  rows: readonly (readonly [label: string, value: string | readonly string[] | null | undefined])[],
): string[] {
  return alignRows(
    rows.flatMap(([label, value]) =>
      [value ?? []].flat().map((line, at) => [at === 0 ? view.paint("dim", label) : "", line]),
    ),
  );
}

/** Joins parts by `separator` into lines of at most `width` columns. */
export function wrapParts(parts: readonly string[], width: number, separator = ", "): string[] {
  const lines: string[] = [];
  for (const part of parts) {
    const last = lines.at(-1);
    const longer = last === undefined ? part : last + separator + part;
    if (last !== undefined && lengthOf(longer) <= width) lines[lines.length - 1] = longer;
    else {
      if (last !== undefined) lines[lines.length - 1] = last + separator.trimEnd();
      lines.push(part);
    }
  }
  return lines;
}

/** The first `most` items, and a line with the number of the others. */
export function firstItems(items: readonly string[], most: number): string[] {
  return items.length <= most
    ? [...items]
    : [...items.slice(0, most), `and ${formatCount(items.length - most)} more`];
}
