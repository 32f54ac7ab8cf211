/** A tensor that is cast to FP8 with one scale is read once where a worker can hold it, with the same result. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { SCRATCH_BYTES } from "../../src/cast/cast.ts";
import type { Event } from "../../src/core/events.ts";
import { bytesAt } from "../support/fault-loop.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

/** Three buffers, and no room for a tensor. */
const LEAST = SCRATCH_BYTES + 3 * 2 ** 18;

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-", { hidden_size: 256, vocab_size: 64 });

async function recast(name: string, memoryBytes: number) {
  const path = join(work, name);
  let [total, advanced] = [0, 0];
  const watch = (event: Event) => {
    if (event.type === "phase" && event.phase === "convert") total = event.totalBytes!;
    if (event.type === "advance" && event.phase === "convert") advanced += event.bytes;
  };
  const options = { dtype: "fp8-e4m3", keepEnds: 0, threads: 1, verify: "off", watch, memoryBytes } as const;
  const { bytesRead } = await convert(model, path, options);
  expect(advanced).toBe(total);
  return { bytesRead, bytes: bytesAt(path) };
}

it("reads each byte once, and the bytes written are those of a run that reads twice", async () => {
  const [held, twice] = [await recast("held.isologit", 2 ** 26), await recast("twice.isologit", LEAST)];
  expect(held.bytes).toEqual(twice.bytes);
  const weights = twice.bytesRead - held.bytesRead;
  expect(weights).toBeGreaterThan(held.bytesRead / 2);
  expect(weights).toBeLessThan(held.bytesRead);
});
