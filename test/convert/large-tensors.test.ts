/** Tensors of several bands: cast to FP8 they are read once where a worker can hold them, and written past the page cache. */
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import type { Event } from "../../src/core/events.ts";
import { hasDirectWrites } from "../../src/io/direct.ts";
import { SCRATCH_BYTES } from "../../src/workers/pool.ts";
import { bytesAt, removeAll } from "../support/fault-loop.ts";
import { intercepted } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";
import { isDirect } from "../support/open-direct.ts";
import { smallModel } from "../support/small.ts";

/** Three buffers, and no room for a tensor. */
const LEAST = SCRATCH_BYTES + 3 * 2 ** 18;

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-*", {
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

const fp8 = { to: "hf", dtype: "fp8-e4m3", keepEnds: 0 } as const;

it.each<[string, ConvertOptions]>([
  ["as it is", { to: "hf" }],
  ["with a scale for each tensor", fp8],
  ["with a scale for each row", { ...fp8, quantScales: "row" }],
  ["with a scale for each block", { ...fp8, quantScales: "block" }],
  ["with a power of two for 32 elements", { ...fp8, quantScales: "mxfp8" }],
  ["in blocks of ggml", { to: "gguf", dtype: "q8_0" }],
  ["in larger blocks of ggml", { to: "gguf", dtype: "q4_k_m" }],
  ["cut for two ranks", { to: "megatron", tp: 2 }],
  ["cut for two ranks, as F32", { to: "megatron", tp: 2, dtype: "f32" }],
])("is written past the page cache %s", async (_, options) => {
  const write = async (name: string, directIo: "auto" | "off", more: ConvertOptions = {}) => {
    const out = join(work, name);
    let isRefused = false;
    const watch = ({ type }: Event) => {
      if (type === "note") isRefused = true;
    };
    let [past, all] = [0, 0];
    const outcome = await intercepted(
      (call, again, args, file) => {
        if (call === "write") {
          const size = args[2] as number;
          all += size;
          if (isDirect((file as FileHandle).fd)) past += size;
        }
        return again(...args);
      },
      () => convert(model, out, { ...options, ...more, verify: "off", directIo, watch }),
    );
    if (outcome.status === "rejected") throw outcome.reason;
    const bytes = bytesAt(out);
    removeAll(out);
    return { isRefused, share: past / all, bytes };
  };
  const [past, through] = [await write("past", "auto"), await write("through", "off")];
  if (hasDirectWrites && !past.isRefused) expect(past.share).toBeGreaterThan(0.75);
  expect(through.share).toBe(0);
  expect(past.bytes).toEqual(through.bytes);
  const lean = await write("lean", "auto", { threads: 1, memoryBytes: LEAST });
  expect(lean.bytes).toEqual(through.bytes);
});
