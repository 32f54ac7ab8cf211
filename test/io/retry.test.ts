/** Trying again: how often, how long the pauses are, and who decides that. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { IsologitError } from "../../src/core/errors.ts";
import { createAttempts, type RetryLimits, retry, retryAfterMs, TransientError } from "../../src/io/retry.ts";

const PATIENCE: RetryLimits = { failures: 5, firstMs: 100, longestMs: 1000 };
const down = (waitMs?: number) => new TransientError(new IsologitError("NETWORK", "down"), waitMs);

/** Pauses that were asked for; none is waited for. */
const pauses: number[] = [];
vi.mock("node:timers/promises", () => ({
  setTimeout: async (ms: number) => {
    pauses.push(ms);
  },
}));

beforeEach(() => {
  pauses.length = 0;
  vi.spyOn(Math, "random").mockReturnValue(1);
});
afterEach(() => {
  vi.restoreAllMocks();
});

describe("pauses", () => {
  it("double, up to the longest; the last failure is the end", async () => {
    const work = vi.fn().mockRejectedValue(down());
    await expect(retry(work, PATIENCE)).rejects.toMatchObject({ code: "NETWORK", message: "down" });
    expect([work.mock.calls.length, pauses]).toEqual([5, [100, 200, 400, 800]]);
  });

  it("are shortened by chance, to a half at most", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    await createAttempts(PATIENCE).failed(down());
    expect(pauses).toEqual([50]);
  });

  it("are what the server asks for, where that is more, but not beyond the longest", async () => {
    for (const waitMs of [700, 5, 60_000]) await createAttempts(PATIENCE).failed(down(waitMs));
    expect(pauses).toEqual([700, 100, 1000]);
  });

  it("begin anew where something was gained", async () => {
    const tries = createAttempts(PATIENCE);
    for (let i = 0; i < 3; i++) await tries.failed(down());
    tries.gained();
    await tries.failed(down());
    expect(pauses).toEqual([100, 200, 400, 100]);
  });
});

describe("a server that never answered", () => {
  it("is given up after three tries, and each pause is told", async () => {
    const told: [string, number][] = [];
    const patience: RetryLimits = {
      ...PATIENCE,
      onRetry: ({ message }, waitMs) => told.push([message, waitMs]),
    };
    const unreached = new TransientError(new IsologitError("NETWORK", "refused"), undefined, true);
    const work = vi.fn().mockRejectedValue(unreached);
    await expect(retry(work, patience)).rejects.toMatchObject({ code: "NETWORK", message: "refused" });
    expect(work).toHaveBeenCalledTimes(3);
    expect(told).toEqual([
      ["refused", 100],
      ["refused", 200],
    ]);
  });
});

it("what does not heal is thrown at once", async () => {
  const work = vi.fn().mockRejectedValue(new IsologitError("FILE_CHANGED", "other"));
  await expect(retry(work, PATIENCE)).rejects.toMatchObject({ code: "FILE_CHANGED" });
  expect([work.mock.calls.length, pauses]).toEqual([1, []]);
});

it("who was stopped does not try again", async () => {
  const over = AbortSignal.abort();
  await expect(createAttempts(PATIENCE, over).failed(down())).rejects.toMatchObject({ code: "INTERRUPTED" });
  expect(pauses).toEqual([]);
});

describe("Retry-After", () => {
  const now = Date.UTC(2025, 0, 1);
  it.each([
    ["7", 7000],
    [" 0 ", 0],
    ["Wed, 01 Jan 2025 00:00:30 GMT", 30_000],
    ["Tue, 31 Dec 2024 00:00:00 GMT", 0],
    ["soon", undefined],
    ["", undefined],
    [null, undefined],
  ])("%j", (value, ms) => {
    expect(retryAfterMs(value, now)).toBe(ms);
  });
});
