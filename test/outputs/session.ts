/** Runs one program again and again in one folder, and notes what each run printed and wrote. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { eventsOf, type Json, stable } from "./stable.ts";

/** What is recorded of each command line. */
export type Entries = Map<string, Json>;

/** The exit status, or the signal that ended the program. */
type Status = number | NodeJS.Signals;

export interface Session {
  /** a path for outputs of this session, relative to the working folder */
  readonly out: (name: string) => string;
  /** runs a command line; `flags` are not part of the name under which it is recorded */
  readonly run: (line: readonly string[], flags?: readonly string[]) => Promise<Status>;
}

/** Commands that compute, and take the flag for it. */
const THREADED = new Set(["convert", "recast", "verify", "plan", "diff", "logits", "generate"]);
/** Commands that write reports, or events, when asked. */
const REPORTING = new Set(["convert", "recast", "verify", "check", "diff", "scan"]);
const WATCHED = new Set([...REPORTING, "inspect", "plan", "logits"]);

/** A program that does not end by itself is ended, and the signal is recorded. */
const MAX_MS = 300_000;

/**
 * Opens a folder of outputs below `work`, which is the working directory of every run. All paths are relative, so
 * that no report and no written file depends on where `work` is.
 */
export function openSession(program: string, work: string, name: string, entries: Entries): Session {
  const folder = join("outputs", name);
  const notes = join(folder, "notes");
  mkdirSync(join(work, notes), { recursive: true });
  const known = new Map<string, string>();
  let count = 0;
  return {
    out: (path) => join(folder, path),
    async run(line, flags = []) {
      const command = line[0]!;
      const title = line.join(" ");
      if (entries.has(title)) throw new Error(`recorded twice: ${title}`);
      const stem = join(notes, String(count++));
      const more = [
        ...(THREADED.has(command) ? ["--threads", "1"] : []),
        ...(WATCHED.has(command) ? ["--events", `${stem}.ndjson`] : []),
        ...(REPORTING.has(command)
          ? ["--report", REPORTS.map((kind) => `${kind}=${stem}.${kind}`).join(",")]
          : []),
      ];
      const { status, stdout } = await ended(program, work, [
        ...line,
        ...flags,
        ...more,
        "--json",
        "--quiet",
      ]);
      entries.set(title, {
        status,
        ...(stdout === "" || typeof status === "string" ? {} : { json: reduced(stdout) }),
        ...notesAt(join(work, stem)),
        files: written(work, folder, known),
      });
      return status;
    },
  };
}

const REPORTS = ["junit", "sarif", "html", "md", "json"] as const;
/** Reports that hold the wording of messages and the name of the machine: only that they exist is recorded. */
const TEXT_REPORTS: readonly string[] = ["junit", "html", "md"];

function notesAt(stem: string): { readonly [key: string]: Json } {
  const events = `${stem}.ndjson`;
  const reports = REPORTS.filter((kind) => existsSync(`${stem}.${kind}`)).map((kind): [string, Json] => {
    const text = readFileSync(`${stem}.${kind}`, "utf8");
    if (TEXT_REPORTS.includes(kind)) return [kind, text === "" ? "empty" : "written"];
    return [kind, sha256(JSON.stringify(reduced(text)))];
  });
  return {
    ...(existsSync(events) ? { events: eventsOf(readFileSync(events, "utf8")) } : {}),
    ...(reports.length === 0 ? {} : { reports: Object.fromEntries(reports.sort()) }),
  };
}

function reduced(text: string): Json {
  return stable(JSON.parse(text), sha256);
}

/** Files below `folder` that are new or changed since the last call, with the SHA-256 of each; notes are left out. */
function written(work: string, folder: string, known: Map<string, string>): Json {
  const found = readdirSync(join(work, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(join(work, folder).length + 1))
    .filter((path) => !path.startsWith("notes/"))
    .sort();
  const changed: [string, Json][] = [];
  for (const path of found) {
    const { size, mtimeMs, ino } = statSync(join(work, folder, path));
    const stamp = `${size} ${mtimeMs} ${ino}`;
    if (known.get(path) === stamp) continue;
    known.set(path, stamp);
    changed.push([path, sha256(readFileSync(join(work, folder, path)))]);
  }
  return Object.fromEntries(changed);
}

function sha256(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Without a GPU, the Hub and the settings of whoever runs it. */
const ENVIRONMENT = { PATH: process.env.PATH, ISOLOGIT_BACKEND: "wasm", HF_HUB_OFFLINE: "1", NO_COLOR: "1" };

function ended(
  program: string,
  cwd: string,
  line: readonly string[],
): Promise<{ status: Status; stdout: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...line], {
      cwd,
      env: ENVIRONMENT,
      stdio: ["ignore", "pipe", "ignore"],
      timeout: MAX_MS,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (part: string) => {
      stdout += part;
    });
    child.on("error", reject);
    // one of the two is always given
    child.on("close", (status, signal) => resolve({ status: status ?? signal!, stdout }));
  });
}
