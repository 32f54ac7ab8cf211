/** Progress by a clock that the test moves: rates, remaining time, widths, lines without a terminal. */
import { describe, expect, it } from "vitest";
import { PhaseMeter, progressBar, progressLine } from "../../../src/cli/progress/meter.ts";
import { openProgress } from "../../../src/cli/progress/progress.ts";
import type { Event } from "../../../src/core/events.ts";

const MIB = 2 ** 20;

/** A phase of 1000 MiB that advances second by second. */
function ran(seconds: number, rateAt: (second: number) => number): { meter: PhaseMeter; now: number } {
  const meter = new PhaseMeter("convert", 1000 * MIB, 100);
  for (let second = 1; second <= seconds; second++) meter.advance(rateAt(second) * MIB, 100 + second);
  return { meter, now: 100 + seconds };
}

describe("the remaining time", () => {
  it("of a steady phase is right after its first seconds, for which it is not told", () => {
    expect(ran(2, () => 10).meter.secondsLeft(2)).toBeNull();
    for (const seconds of [4, 10, 50, 99]) {
      const { meter, now } = ran(seconds, () => 10);
      expect(meter.secondsLeft(now)).toBeCloseTo(100 - seconds, 6);
    }
  });

  it("follows the last seconds, not the whole phase: a slow beginning is forgotten", () => {
    const { meter, now } = ran(60, (second) => (second <= 40 ? 1 : 20));
    expect(meter.done).toBeCloseTo(0.44, 6);
    expect(meter.secondsLeft(now)).toBeCloseTo(560 / 20, 0);
  });

  it("grows while nothing moves", () => {
    const { meter, now } = ran(20, () => 10);
    expect(meter.secondsLeft(now + 30)).toBeGreaterThan(2 * meter.secondsLeft(now)!);
  });

  it("is not told before there is progress, and is 0 at the end", () => {
    expect(new PhaseMeter("convert", 1000, 0).secondsLeft(5)).toBeNull();
    const { meter, now } = ran(100, () => 10.5);
    expect(meter.secondsLeft(now)).toBe(0);
    expect(meter.done).toBe(1);
  });
});

describe("a line", () => {
  const { meter, now } = ran(65, () => 10);
  meter.reach(26, 52);

  it("fits any width, and leaves out what matters least", () => {
    for (const width of [20, 40, 60, 79, 100, 140]) {
      const line = progressBar(meter, now, width);
      expect(line.length, line).toBeLessThanOrEqual(Math.max(width, 25));
      expect(line).toContain("65 %");
    }
    expect(progressBar(meter, now, 79)).toBe(
      "convert  ━━━━━━━━────   65 %  layer 27 of 52  10.0 MiB/s  1 min 05 s  35 s left",
    );
    expect(progressBar(meter, now, 139)).toMatch(
      /^convert {2}━{26}─{14} {3}65 % .* 650\.0 MiB of 1000\.0 MiB {2}/,
    );
    expect(progressBar(meter, now, 45)).toMatch(/ 65 % {2}35 s left$/);
  });

  it("without a bar says the same", () => {
    expect(progressLine(meter, now)).toBe(
      "convert: 65 %, layer 27 of 52, 650.0 MiB of 1000.0 MiB, 10.0 MiB/s, 1 min 05 s, 35 s left",
    );
  });
});

describe("without a terminal", () => {
  /** Lines on stderr for events at given seconds. */
  async function linesOf(events: readonly (readonly [second: number, event: Event])[], quiet = false) {
    let now = 0;
    const parts: string[] = [];
    const stderr = { isTTY: false, write: (part: string) => parts.push(part) };
    const io = { stderr, stdout: stderr, env: {}, onSignal: () => () => {}, exit() {} };
    const options = { quiet, verbose: false, progress: true };
    const output = await openProgress(io as never, options, () => now); // the two streams are only written to
    for (const [second, event] of events) {
      now = second;
      output.watch(event);
    }
    return { lines: parts.join("").split("\n").slice(0, -1), phases: output.phases() };
  }
  const advance = (second: number) =>
    [second, { type: "advance", phase: "convert", bytes: 10 * MIB }] as const;
  const events = [
    [0, { type: "phase", phase: "convert", totalBytes: 1000 * MIB }] as const,
    ...Array.from({ length: 70 }, (_, i) => advance(i + 1)),
    [70, { type: "phase", phase: "bytes", totalBytes: 5 }] as const,
    [72, { type: "advance", phase: "bytes", bytes: 5 }] as const,
  ];

  it("a line comes every 30 seconds", async () => {
    expect((await linesOf(events)).lines).toEqual([
      "convert: 1000.0 MiB",
      "convert: 30 %, 300.0 MiB of 1000.0 MiB, 10.0 MiB/s, 30 s, 1 min 10 s left",
      "convert: 60 %, 600.0 MiB of 1000.0 MiB, 10.0 MiB/s, 1 min 00 s, 40 s left",
      "bytes: 5 B",
    ]);
    expect((await linesOf(events, true)).lines).toEqual([]);
  });

  it("the phases are timed for the summary, with --quiet too", async () => {
    for (const quiet of [false, true]) {
      expect((await linesOf(events, quiet)).phases).toEqual([
        { phase: "convert", seconds: 70, bytes: 700 * MIB },
        { phase: "bytes", seconds: 2, bytes: 5 },
      ]);
    }
  });
});
