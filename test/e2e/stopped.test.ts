/** Stopped in mid-run, by a signal it can hear or by one it cannot: a resume gives the bytes of a run left alone. */
import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { json, script, start } from "../support/program.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const destination = join(work, "model.isologit");
const staged = `${destination}.partial`;
const journal = join(staged, "journal.ndjson");
const lock = `${staged}.lock`;
afterEach(() => {
  for (const path of [destination, staged, lock]) rmSync(path, { recursive: true, force: true });
});

describe("the program, on 60 MB", async () => {
  const model = await smallModel(join(work, "large"), "M-", { hidden_size: 512, vocab_size: 28_000 });
  const whole = join(work, "whole.isologit");
  await convert(model, whole, { verify: "bytes" });
  const events = join(work, "events");
  // one thread and small bands: slow enough to be caught at work
  const args = [
    "convert",
    model,
    destination,
    "--verify",
    "bytes",
    "--threads",
    "1",
    "--memory",
    "1MiB",
    "--events",
    events,
  ];

  /** Starts it, and sends a signal once bytes have moved. */
  async function stopped(signal: NodeJS.Signals) {
    rmSync(events, { force: true });
    const { child, ended } = start(args);
    while (!existsSync(events) || !readFileSync(events, "utf8").includes('"advance"')) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    child.kill(signal);
    return ended;
  }

  it.each([
    ["SIGINT", 5],
    ["SIGTERM", 5],
    ["SIGHUP", 5],
    ["SIGKILL", null],
  ] as const)("%s ends it with %j, and --resume continues", async (signal, exit) => {
    const { status, stdout, stderr } = await stopped(signal);
    expect([status, stdout]).toEqual([exit, ""]);
    if (exit !== null) {
      expect(stderr).toContain("INTERRUPTED");
      expect(stderr).toMatch(/^next: .*--resume/m);
    }
    expect([existsSync(destination), existsSync(staged)]).toEqual([false, true]);
    const resumed = await json(...args, "--resume");
    expect([resumed.status, resumed.report.verification.verdict]).toEqual([0, "same"]);
    expect(readFileSync(destination).equals(readFileSync(whole))).toBe(true);
    expect(existsSync(staged)).toBe(false);
  });
});

describe("a process killed at a chosen point", () => {
  const model = golden("sharded");
  const options: ConvertOptions = { verify: "off", threads: 1, checkpointBytes: 100_000 };

  /** Converts in a process of its own, killed at the n-th call of that name, or once the journal has n lines. */
  async function killed(
    at: { lines?: number; rename?: number; link?: number; rm?: number },
    given: ConvertOptions,
  ): Promise<void> {
    const library = new URL("../../dist/src/index.js", import.meta.url).href;
    const { signal, stderr } = await script(`
      import { readFileSync } from "node:fs";
      import fs from "node:fs/promises";
      import { syncBuiltinESMExports } from "node:module";
      const at = ${JSON.stringify(at)};
      const count = (name) => --at[name] === 0 && process.kill(process.pid, "SIGKILL");
      for (const name of ["rename", "link", "rm"]) {
        const real = fs[name];
        fs[name] = async (...args) => (count(name) ? new Promise(() => {}) : real(...args));
      }
      syncBuiltinESMExports();
      const { convert } = await import(${JSON.stringify(library)});
      const lines = () => readFileSync(${JSON.stringify(journal)}, "utf8").split("\\n").length - 1;
      const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5); // disks are slow
      const watch = ({ type }) => {
        if (type !== "tensor" || at.lines === undefined) return;
        if (lines() >= at.lines) process.kill(process.pid, "SIGKILL");
        pause();
      };
      await convert(${JSON.stringify(model)}, ${JSON.stringify(destination)}, { ...${JSON.stringify(given)}, watch });
    `);
    expect(signal, stderr).toBe("SIGKILL");
  }

  /** Bytes that a run moves, and those of each tensor. */
  async function moved(given: ConvertOptions) {
    let bytes = 0;
    const tensors = new Map<string, number>();
    const watch: ConvertOptions["watch"] = (event) => {
      if (event.type === "advance") bytes += event.bytes;
      if (event.type === "tensor") tensors.set(event.name, event.bytes);
    };
    const report = await convert(model, destination, { ...given, watch });
    return { bytes, tensors, report };
  }

  it("finished tensors are not moved again, though the journal's last line was cut short", async () => {
    const all = await moved(options);
    const right = readFileSync(destination);
    rmSync(destination);
    await killed({ lines: 10 }, options);
    truncateSync(journal, readFileSync(journal).byteLength - 9);
    await killed({ lines: 30 }, { ...options, resume: true });
    const [, ...lines] = readFileSync(journal, "utf8").trim().split("\n");
    const finished = lines.map((line) => all.tensors.get(JSON.parse(line).name) ?? 0);
    appendFileSync(journal, "\0".repeat(512)); // what a power cut leaves of a line
    const { report, ...rest } = await moved({ ...options, resume: true });
    expect(finished.length).toBeGreaterThanOrEqual(29);
    const kept = finished.reduce((sum, bytes) => sum + bytes);
    expect(rest.bytes).toBe(all.bytes - kept);
    // the report tells apart what this run and an earlier one wrote; nothing is cast, so as much is read as written
    const { bytesRead, bytesWritten, bytesResumed } = all.report;
    expect([report.bytesResumed, bytesResumed]).toEqual([kept, 0]);
    expect([report.bytesRead, report.bytesWritten]).toEqual([bytesRead - kept, bytesWritten - kept]);
    expect(readFileSync(destination).equals(right)).toBe(true);
  });

  const replaces: ConvertOptions = { ...options, to: "packed", dtype: "f32", overwrite: true };
  const replacing = async (at: { rename?: number; link?: number; rm?: number }) => {
    await convert(model, destination, replaces);
    const right = readFileSync(destination);
    await convert(model, destination, { ...options, overwrite: true });
    const old = readFileSync(destination);
    await killed(at, replaces);
    return { old, right };
  };

  it.each([
    ["before the old destination is set aside", { rename: 1 }],
    ["before the new one takes its place", { link: 1 }],
    ["before the rest is cleared away", { rm: 1 }],
  ])("%s", async (_, at) => {
    const { right } = await replacing(at);
    await convert(model, destination, { ...replaces, resume: true });
    expect(readFileSync(destination).equals(right)).toBe(true);
    expect(existsSync(staged)).toBe(false);
  });

  it("a resume without --overwrite of one that was cleared all but the rest", async () => {
    await killed({ rm: 1 }, options);
    expect([existsSync(destination), existsSync(staged)]).toEqual([true, true]);
    const report = await convert(model, destination, { ...options, resume: true });
    expect([report.bytesWritten, existsSync(staged)]).toEqual([0, false]);
  });

  it("the old destination survives a fresh start that fails", async () => {
    const { old } = await replacing({ link: 1 });
    expect(existsSync(destination)).toBe(false);
    const signal = AbortSignal.abort();
    await expect(convert(model, destination, { ...replaces, signal })).rejects.toMatchObject({
      code: "INTERRUPTED",
    });
    expect(readFileSync(destination).equals(old)).toBe(true);
    expect([...filesOf(work).keys()].filter((file) => file.endsWith("replaced"))).toEqual([]);
  });
});
