/** A golden as a decoder reads it, and the logits that Transformers recorded for it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { Distance } from "../../src/core/distance.ts";
import { Sources } from "../../src/core/read.ts";
import { Decoder } from "../../src/inference/decoding/decoder.ts";
import { Rounder } from "../../src/inference/rounding.ts";
import { arraysOf, familyGolden, floatsOf, golden, idsOf } from "./goldens.ts";

export const wasm = () => createWasmBackend({ threads: 1, memoryBytes: 256 << 20 });

/** A golden of Nemotron-H, or else of another family. */
const folderOf = (name: string) => (existsSync(golden(name)) ? golden(name) : familyGolden(name));

/**
 * Reads ids in runs of the given lengths.
 *
 * @param between called after each
 * @returns the logits after each run
 */
export async function readIn(
  name: string,
  backend: Backend,
  ids: readonly number[],
  lengths: readonly number[],
  between: () => void = () => {},
): Promise<readonly Float32Array[]> {
  const checkpoint = await openCheckpoint(folderOf(name));
  const model = await loadModelWithScales(checkpoint, {});
  await using sources = new Sources(checkpoint.store);
  const rounder = await Rounder.create();
  const common = { sources, rounder, bandBytes: 1 << 20, signal: undefined };
  const decoder = new Decoder({ model, backend, capacity: ids.length, ...common });
  const logits: Float32Array[] = [];
  let at = 0;
  for (const length of lengths) {
    logits.push(await decoder.read(ids.slice(at, at + length)));
    at += length;
    between();
  }
  decoder.close();
  return logits;
}

export interface Recorded {
  readonly ids: readonly number[];
  /** of what follows the first so many tokens, [vocab] */
  after(tokens: number): Float32Array;
}

export async function recorded(name: string, key: string): Promise<Recorded> {
  const arrays = await arraysOf(join(folderOf(name), "reference.safetensors"));
  const ids = idsOf(arrays.get(`input_ids.${key}`)!);
  const logits = floatsOf(arrays.get(`logits_f32.${key}`)!);
  const vocab = logits.length / ids.length;
  return { ids, after: (tokens) => logits.subarray((tokens - 1) * vocab, tokens * vocab) };
}

export const ones = (count: number) => Array<number>(count).fill(1);

/** Reads a recorded prompt in runs of the given lengths, to its end: after each the logits must be those of the whole prompt. */
export async function expectSteps(
  name: string,
  backend: Backend,
  key: "len17" | "len130",
  lengths: readonly number[],
): Promise<void> {
  const { ids, after } = await recorded(name, key);
  const runs = await readIn(name, backend, ids, lengths);
  let read = 0;
  for (const [i, length] of lengths.entries()) {
    read += length;
    expect(new Distance().add(after(read), runs[i]!).relL2, `after ${read}`).toBeLessThanOrEqual(2e-5);
  }
  expect(read).toBe(ids.length);
}
