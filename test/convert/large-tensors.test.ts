/** Tensors of several bands: cast to FP8 they are read once where a worker can hold them, and written past the page cache. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { SCRATCH_BYTES } from "../../src/cast/cast.ts";
import type { Event } from "../../src/core/events.ts";
import { hasDirectWrites } from "../../src/io/direct.ts";
import { bytesAt } from "../support/fault-loop.ts";
import { workFolder } from "../support/goldens.ts";
import { isOpenDirect } from "../support/open-direct.ts";
import { smallModel } from "../support/small.ts";

/** Three buffers, and no room for a tensor. */
const LEAST = SCRATCH_BYTES + 3 * 2 ** 18;

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-", {
  ...{ hidden_size: 1024, vocab_size: 64 },
  intermediate_size: 3072, // 6 MiB, and a band has at most 4
});

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

it.each([{}, { dtype: "fp8-e4m3", keepEnds: 0 }] as const)(
  "is written past the page cache: %o",
  async (cast) => {
    const file = (out: string) => join(`${out}.partial`, "data", "model.safetensors");
    const seen = async (directIo: "auto" | "off") => {
      const out = join(work, `${directIo}-${Object.keys(cast).length}`);
      let [isDirect, isRefused] = [false, false];
      const watch = ({ type }: Event) => {
        if (type === "advance") isDirect ||= isOpenDirect(file(out));
        if (type === "note") isRefused = true;
      };
      await convert(model, out, { ...cast, to: "hf", threads: 1, verify: "off", directIo, watch });
      return { isDirect: isDirect || isRefused, bytes: bytesAt(out) };
    };
    const [past, through] = [await seen("auto"), await seen("off")];
    expect([past.isDirect, through.isDirect]).toEqual([hasDirectWrites, false]);
    expect(past.bytes).toEqual(through.bytes);
  },
);
