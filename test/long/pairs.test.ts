/** 200 pairs of processes on one destination; PAIRS and SEED in the environment choose others. */
import { expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { runPair, worldOf } from "../support/pairs.ts";

const count = Number(process.env.PAIRS ?? 200);
const first = Number(process.env.SEED ?? 1000);

it(`${count} pairs of processes on one destination`, { timeout: count * 30_000 }, async () => {
  const world = await worldOf(workFolder());
  const outcomes = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const outcome = await runPair(world, first + i);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  for (const [outcome, times] of [...outcomes].sort()) console.log(`${times} times ${outcome}`);
  expect([...outcomes.values()].reduce((sum, times) => sum + times)).toBe(count);
});
