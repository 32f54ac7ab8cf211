/** Many kinds of damage, one outcome each: a value or an IsologitError, no third way, and soon. */
import { expect } from "vitest";
import { IsologitError } from "../../src/core/errors.ts";
import { randomFrom } from "../support/random.ts";

/** No input of a few kilobytes is worth more than this. */
const MAX_MS = 2000;

/** Runs `attempt` on `times` kinds of damage. More than one thing must come of it, or the damage proves nothing. */
export async function fuzz(
  times: number,
  attempt: (random: (n: number) => number) => unknown,
): Promise<void> {
  const outcomes = new Map<string, number>();
  for (let seed = 0; seed < times; seed++) {
    const started = performance.now();
    let outcome = "a value";
    try {
      const value = await attempt(randomFrom(seed));
      if (typeof value === "string") outcome = value;
    } catch (error) {
      if (!(error instanceof IsologitError))
        throw new Error(`seed ${seed}: not one of ours`, { cause: error });
      expect(error.exit, `seed ${seed}: ${error.message}`).toBeLessThan(70);
      outcome = error.code;
    }
    expect(performance.now() - started, `seed ${seed}, ms`).toBeLessThan(MAX_MS);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  expect(outcomes.size, [...outcomes].join(" ")).toBeGreaterThan(1);
}
