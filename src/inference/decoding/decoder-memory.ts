/** What a generation takes of the memory that it is given, known before anything is read. */
import { createMeter } from "../../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../../kernels/backend/wasm.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import type { LoadedModel } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { Sources } from "../../core/read.ts";
import { mainLayers } from "../../families/model.ts";
import { memoryOf, threadsOf } from "../machine.ts";
import { partBytes } from "../memory.ts";
import { Decoder } from "./decoder.ts";
import { stateCacheBytes } from "./state-cache.ts";

/** More at a time would read the weights less often, and hold wider streams. */
const MOST_AT_ONCE = 512;

export interface DecoderMemory {
  /** tokens of the prompt that are read at a time */
  readonly readAtOnce: number;
  readonly bandBytes: number;
  readonly kept: { readonly perTokenBytes: number; readonly fixedBytes: number };
}

/**
 * The most tokens of the prompt at a time for which the memory suffices.
 *
 * @param capacity tokens of the prompt and after it
 * @throws PLAN_MEMORY with the number that would do
 */
export async function planDecoderMemory(
  model: LoadedModel,
  options: RunOptions,
  backend: Backend["id"],
  promptTokens: number,
  capacity: number,
): Promise<DecoderMemory> {
  const { family, dims } = model;
  const { forward } = family;
  const blocks = mainLayers(model).map(({ kind }) => forward.block(kind, dims));
  const { perToken, fixed } = stateCacheBytes(blocks, forward.streams(dims), dims);
  const memoryBytes = memoryOf(options);
  const most = backend === "wasm" ? Math.min(memoryBytes, ADDRESSABLE_BYTES) : memoryBytes;
  const bandBytes = partBytes(memoryBytes);
  const needed = (tokens: number, bandBytes: number) => bytesOf(model, options, bandBytes, tokens, capacity);
  for (let tokens = Math.min(promptTokens, MOST_AT_ONCE); tokens >= 1; tokens = Math.floor(tokens / 2)) {
    if ((await needed(tokens, bandBytes)) > most) continue;
    return { readAtOnce: tokens, bandBytes, kept: { perTokenBytes: perToken, fixedBytes: fixed } };
  }
  let enough = await needed(1, bandBytes);
  // A larger memory is read into in larger parts.
  while (true) {
    const again = await needed(1, partBytes(enough));
    if (again <= enough) break;
    enough = again;
  }
  const message =
    `${most} bytes of buffers are allowed; this needs ${enough}, of which ${perToken * capacity + fixed} keep what ` +
    `${capacity} tokens leave behind`;
  const next = enough > ADDRESSABLE_BYTES && backend === "wasm" ? { next: "give fewer tokens" } : {};
  throw new IsologitError("PLAN_MEMORY", message, {}, next);
}

/** Bytes of buffers at the peak, found on a backend that only counts: all readings but the first are alike. */
async function bytesOf(
  model: LoadedModel,
  options: RunOptions,
  bandBytes: number,
  tokens: number,
  capacity: number,
): Promise<number> {
  const backend = createMeter(threadsOf(options));
  await using sources = new Sources(model.checkpoint.store);
  const common = { sources, rounder: { round() {} }, bandBytes, capacity, signal: options.signal };
  const decoder = new Decoder({ model: { ...model, scaleValues: new Map() }, backend, ...common });
  await decoder.read(new Array<number>(tokens).fill(0));
  if (2 * tokens <= capacity) await decoder.read(new Array<number>(tokens).fill(0));
  if (tokens < capacity) await decoder.read([0]);
  decoder.close();
  return backend.peakBytes;
}
