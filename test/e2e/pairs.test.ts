import { it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { runPair, worldOf } from "../support/pairs.ts";

const world = await worldOf(workFolder());

it.each([1, 2, 3, 4, 5, 6])("two processes on one destination, seed %i", async (seed) => {
  await runPair(world, seed);
});
