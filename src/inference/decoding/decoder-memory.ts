/** Memory plan of `generate`, computed before any weight is read. */
import { createMeter } from "../../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../../kernels/backend/wasm.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import type { LoadedModel } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { Sources } from "../../core/read.ts";
import { carriedElements } from "../../families/carried.ts";
import { mainLayers } from "../../families/model.ts";
import { memoryOf, threadsOf } from "../machine.ts";
import { partBytes } from "../memory.ts";
import { Decoder } from "./decoder.ts";

/** Most prompt tokens read at a time. More would read the weights less often, but the streams would need more memory. */
const MOST_AT_ONCE = 512;

interface DecoderMemory {
  /** prompt tokens read at a time */
  readonly readAtOnce: number;
  /** bytes of weights read at a time */
  readonly bandBytes: number;
  /** size of the state cache: bytes for each token, and bytes that do not depend on the number of tokens */
  readonly cache: { readonly perTokenBytes: number; readonly fixedBytes: number };
}

/**
 * Plans the memory: the largest number of prompt tokens at a time that fits.
 *
 * @param promptTokens number of prompt tokens
 * @param capacity     largest number of tokens, prompt and generated
 * @throws PLAN_MEMORY with the number of bytes that would be enough
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
  const carried = carriedElements(blocks, forward.streams(dims), dims);
  const [perToken, fixed] = [4 * carried.perToken, 4 * carried.fixed]; // F32
  const memoryBytes = memoryOf(options);
  const available = backend === "wasm" ? Math.min(memoryBytes, ADDRESSABLE_BYTES) : memoryBytes;
  const bandBytes = partBytes(memoryBytes);
  const needed = (tokens: number, bandBytes: number) => bytesOf(model, options, bandBytes, tokens, capacity);
  for (let tokens = Math.min(promptTokens, MOST_AT_ONCE); tokens >= 1; tokens = Math.floor(tokens / 2)) {
    if ((await needed(tokens, bandBytes)) > available) continue;
    return { readAtOnce: tokens, bandBytes, cache: { perTokenBytes: perToken, fixedBytes: fixed } };
  }
  let enough = await needed(1, bandBytes);
  // A larger budget has larger bands, which need more memory again.
  while (true) {
    const again = await needed(1, partBytes(enough));
    if (again <= enough) break;
    enough = again;
  }
  const message =
    `${available} bytes of buffers are allowed; this needs ${enough}, of which ${perToken * capacity + fixed} are the ` +
    `state cache of ${capacity} tokens`;
  const next = enough > ADDRESSABLE_BYTES && backend === "wasm" ? { next: "give fewer tokens" } : {};
  throw new IsologitError("PLAN_MEMORY", message, {}, next);
}

/** Peak bytes of buffers, measured on a backend that only counts memory. All reads after the first need the same. */
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
