/** Checkpoints that real software wrote, places to write beside them, and small safetensors files as arrays. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { readHeader } from "../../formats/codec/safetensors.ts";
import type { DType } from "../../src/core/dtype.ts";
import { widen } from "../../src/core/float.ts";
import { filesOf } from "./content.ts";
import { memorySource } from "./memory-store.ts";

export { filesOf };

export const golden = (name: string): string =>
  new URL(`../../fixtures/nemotron-h/${name}`, import.meta.url).pathname;

/** A file that llama.cpp's own tools wrote. */
export const ggufGolden = (name: string): string =>
  new URL(`../../fixtures/gguf/${name}`, import.meta.url).pathname;

/** Checkpoints of the other families. */
export const FAMILIES = [
  ...["llama", "mistral", "qwen2", "qwen3", "nemotron", "mixtral", "qwen3_moe"],
  ...["bamba", "falcon_h1", "granitemoehybrid"],
];

/** A checkpoint of another family than Nemotron-H. */
export const familyGolden = (name: string): string =>
  new URL(`../../fixtures/families/${name}`, import.meta.url).pathname;

/** A folder of `tiny` as a quantiser wrote it. */
export const fp8Dialects = (name: string): string =>
  new URL(`../../fixtures/fp8-dialects/${name}`, import.meta.url).pathname;

/** A folder for the test file that calls it, gone afterwards. Not for the top of a module of support: files share those. */
export function workFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "isologit-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface StoredArray {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The tensors of a safetensors file. */
export async function arraysOf(path: string): Promise<ReadonlyMap<string, StoredArray>> {
  const bytes = new Uint8Array(readFileSync(path));
  const { tensors } = await readHeader(memorySource(path, bytes));
  return new Map(
    tensors.map(({ name, dtype, shape, begin, end }) => [
      name,
      { dtype, shape, bytes: bytes.slice(begin, end) },
    ]),
  );
}

export function floatsOf({ bytes }: StoredArray): Float32Array {
  return widen("F32", bytes);
}

export function idsOf({ bytes }: StoredArray): number[] {
  return [...new BigInt64Array(bytes.buffer, 0, bytes.byteLength / 8)].map(Number);
}
