/** Writes reports to files: a file appears complete or not at all. */
import { constants } from "node:fs";
import { access, appendFile, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { makeFolders } from "../io/folders.ts";
import { writeWhole } from "../io/whole-file.ts";
import { htmlText } from "./html.ts";
import { jsonText } from "./json.ts";
import { junitText } from "./junit.ts";
import { REPORT_KINDS, type ReportFiles, type ReportKind } from "./kinds.ts";
import { mdText } from "./md.ts";
import { sarifText } from "./sarif.ts";
import type { RunTimes, Subject } from "./subject.ts";

/** The text of a subject in each report format. */
const WRITERS = {
  junit: junitText,
  sarif: (subject) => sarifText(subject, process.cwd()),
  html: htmlText,
  md: mdText,
  json: ({ report }) => jsonText(report),
} as const satisfies Record<ReportKind, (subject: Subject, times: RunTimes) => string>;

/**
 * Checks before the work begins that the files can be written, and makes their folders.
 *
 * @throws NOT_FOUND, IO_FAILED, naming the file
 */
export async function refuseUnwritable(files: ReportFiles): Promise<void> {
  for (const file of Object.values(files)) {
    await located(file, async () => {
      const there = await stat(file).catch(() => null);
      if (there?.isDirectory()) throw new IsologitError("IO_FAILED", "it is a folder", { file });
      if (there === null) await makeFolders(dirname(file));
      if (there === null || there.isFile()) await access(dirname(file), constants.W_OK);
    });
  }
}

/**
 * @param summary file of the summary of a CI step; the Markdown report, if there is one, is appended to it
 * @throws NOT_FOUND, IO_FAILED, DISK_FULL, naming the file
 */
export async function writeReports(
  subject: Subject,
  times: RunTimes,
  files: ReportFiles,
  summary: string | undefined,
): Promise<void> {
  for (const kind of REPORT_KINDS) {
    const file = files[kind];
    if (file === undefined) continue;
    const text = WRITERS[kind](subject, times);
    await located(file, () => replace(file, text));
    if (kind === "md" && summary) await located(summary, () => appendFile(summary, text));
  }
}

const NEXT_STEP = { next: "give --report a file that can be written" };

async function located(file: string, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    const known = systemError(error, { file });
    if (!(known instanceof IsologitError)) throw known;
    throw new IsologitError(known.code, known.message, { file }, { cause: error, ...NEXT_STEP });
  }
}

/** A device (/dev/stdout) is written directly, because it cannot be replaced. */
async function replace(file: string, text: string): Promise<void> {
  const there = await stat(file).catch(() => null);
  if (there !== null && !there.isFile()) return writeFile(file, text);
  await writeWhole(file, text);
}
