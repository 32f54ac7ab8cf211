/** What goes on while a command runs: progress, warnings, events, signals. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { StopSignal } from "../../src/cli/io.ts";
import type { Library } from "../../src/cli/library.ts";
import type { Event } from "../../src/core/events.ts";
import { CONVERTED, run } from "../support/fake-library.ts";
import { expectSchema } from "../support/json-schemas.ts";

const folder = mkdtempSync(join(tmpdir(), "isologit-cli-"));
afterAll(() => rmSync(folder, { recursive: true }));

const EVENTS: readonly Event[] = [
  { type: "phase", phase: "convert", totalBytes: 2048 },
  { type: "warning", message: "padded rows stay" },
  { type: "advance", phase: "convert", bytes: 1024 },
  { type: "tensor", name: "backbone.D", bytes: 32 },
  { type: "warning", message: "padded rows stay" },
  { type: "advance", phase: "convert", bytes: 1024 },
  { type: "phase", phase: "bytes", totalBytes: 4096 },
  { type: "advance", phase: "bytes", bytes: 1024 },
  { type: "layer", layer: 1, of: 4, kind: "mamba" },
  { type: "rung", rung: "bytes", verdict: "same" },
];

const convert: Library["convert"] = async (_, __, { watch } = {}) => {
  for (const event of EVENTS) watch?.(event);
  return CONVERTED;
};
const working = { over: { convert } };
const LINE = "convert a b.isologit";

describe("talk is on stderr", () => {
  it("a few lines where it is no terminal", async () => {
    expect((await run(LINE, working)).stderr).toBe("convert: 2.0 KiB\nbytes: 4.0 KiB\nbytes: same\n");
    expect((await run(`${LINE} --verbose`, working)).stderr).toBe(
      "convert: 2.0 KiB\nbackbone.D: 32 B\nbytes: 4.0 KiB\nlayer 2 of 4: mamba\nbytes: same\n",
    );
  });

  it("none at all with --quiet", async () => {
    expect((await run(`${LINE} --quiet`, { ...working, tty: true })).stderr).toBe("");
  });

  it("a bar on a terminal, unless someone would rather not", async () => {
    const world = { ...working, tty: true };
    expect((await run(LINE, world)).stderr).toContain("━");
    expect((await run(`${LINE} --no-progress`, world)).stderr).not.toContain("━");
    expect((await run(LINE, { ...world, env: { CI: "true" } })).stderr).not.toContain("━");
    expect((await run(LINE, working)).stderr).not.toContain("━");
    expect((await run(LINE, { ...world, env: { TERM: "dumb" } })).stderr).not.toContain("━");
    expect((await run(`${LINE} --verbose`, world)).stderr).not.toContain("━");
  });

  it("lines and the bar do not share a line", async () => {
    const { stderr } = await run(LINE, { ...working, tty: true });
    expect(stderr).toContain("2.0 KiB of 2.0 KiB");
    expect(stderr).toContain("layer 2 of 4");
    expect(stderr).toContain("\u001b[2Kbytes: same\n");
    expect(stderr).toMatch(/convert \d\.\d\d s at .*, 2\.0 KiB\n/);
    expect(stderr.lastIndexOf("━"), "the bar is gone at the end").toBeLessThan(
      stderr.lastIndexOf("\u001b[2K"),
    );
  });
});

describe("a warning is said once", () => {
  it("with the summary", async () => {
    const { stdout, stderr } = await run(LINE, working);
    expect(stdout.match(/padded rows stay/g)).toHaveLength(1);
    expect(stdout.endsWith("\n\nwarning  padded rows stay\n")).toBe(true);
    expect(stderr).not.toContain("padded");
  });

  it("on stderr where stdout is JSON, or where the run fails", async () => {
    const json = await run(`${LINE} --json`, working);
    expect(json.json()).toEqual(CONVERTED);
    expect(json.stderr.match(/warning {2}padded rows stay\n/g)).toHaveLength(1);
    const failing: Library["convert"] = async (...args) => {
      await convert(...args);
      throw new Error("broken");
    };
    const failed = await run(LINE, { over: { convert: failing } });
    expect(failed.stderr).toMatch(/warning {2}padded rows stay\nINTERNAL {2}broken\n/);
  });
});

describe("--events", () => {
  it("writes each event as a line of JSON, quiet or not", async () => {
    const file = join(folder, "events.ndjson");
    for (const flag of ["", "--quiet", "--json"]) {
      await run([...LINE.split(" "), "--events", file, ...(flag ? [flag] : [])], working);
      const lines = readFileSync(file, "utf8").trimEnd().split("\n");
      const parsed = lines.map((line) => JSON.parse(line));
      expect(parsed.map(({ time: _, ...event }) => event)).toEqual(EVENTS);
      const times = parsed.map(({ time }) => new Date(time).toISOString());
      expect(parsed.map(({ time }) => time)).toEqual(times);
      expect(times.toSorted()).toEqual(times);
      for (const event of parsed) expectSchema(["event"], event);
    }
  });

  it("that cannot be written stops the run before it begins", async () => {
    const file = join(folder, "none", "events.ndjson");
    const { status, calls, stderr } = await run([...LINE.split(" "), "--events", file], working);
    expect([status, calls]).toEqual([4, []]);
    expect(stderr).toContain(`NOT_FOUND  no such file or folder, in ${file}`);
  });
});

describe("signals", () => {
  /** Waits for the abort, as the library does, and fails the way `fail` says. */
  const waiting =
    (started: () => void, fail: (reason: unknown) => unknown): Library["convert"] =>
    (_, __, { signal } = {}) =>
      new Promise((_resolve, reject) => {
        signal?.addEventListener("abort", () => setImmediate(() => reject(fail(signal.reason))));
        started();
      });

  async function interrupted(line: string, sent: StopSignal[], fail: (reason: unknown) => unknown) {
    let send: (signal: StopSignal) => void = () => {};
    const wait = waiting(() => {
      for (const signal of sent) send(signal);
    }, fail);
    return await run(line, {
      over: { convert: wait, verify: (...[a, b, options]) => wait(a, b!, options) as never },
      signals: (sender) => {
        send = sender;
      },
    });
  }

  it("the first stops the library and says how to go on", async () => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      const { status, stderr, exits, listening } = await interrupted(LINE, [signal], (reason) => reason);
      expect([status, exits, listening]).toEqual([5, [], 0]);
      expect(stderr).toBe(
        `${signal}: stopping at the next safe point; a second signal ends at once\n` +
          `INTERRUPTED  stopped by ${signal}\n` +
          "next: run the same command again with --resume; it continues where it stopped\n",
      );
    }
  });

  it("whatever the abort breaks is an interruption", async () => {
    const { status, json } = await interrupted(`${LINE} --json`, ["SIGINT"], () => new Error("worker ended"));
    expect(status).toBe(5);
    expect(json().error).toMatchObject({ code: "INTERRUPTED", message: "stopped by SIGINT" });
  });

  it("does not promise --resume where there is none", async () => {
    const { stderr } = await interrupted("verify a b", ["SIGINT"], (reason) => reason);
    expect(stderr).toContain("next: run the same command again\n");
  });

  it("the second ends the process", async () => {
    expect((await interrupted(LINE, ["SIGINT", "SIGINT"], (reason) => reason)).exits).toEqual([5]);
  });

  it("are not listened to once the command is over", async () => {
    expect((await run(LINE)).listening).toBe(0);
  });
});
