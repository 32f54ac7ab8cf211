/** Memory with a caster in it, and the golden files, for the tests of this folder. */
import { readFileSync } from "node:fs";
import { createSharedMemory, FIRST_ADDRESS } from "../../../kernels/module.ts";
import { createCaster, SCRATCH_BYTES } from "../../../src/cast/cast.ts";
import { type FloatDType, widthOf } from "../../../src/core/dtype.ts";
import type { Arena } from "./tensor.ts";

export async function arenaOf(size: number): Promise<Arena> {
  const memory = createSharedMemory(SCRATCH_BYTES + size);
  const at = FIRST_ADDRESS + SCRATCH_BYTES;
  return { memory, caster: await createCaster(memory, FIRST_ADDRESS), at, size };
}

/** Elements of `from` cast as they lie, at odd addresses on purpose. */
export function castBytes(
  { caster, memory, at }: Arena,
  from: FloatDType,
  to: FloatDType,
  bytes: Uint8Array,
  { scale = null, sourceScale = null }: { scale?: number | null; sourceScale?: number | null } = {},
): { bytes: Uint8Array; overflowAt: number } {
  const count = bytes.byteLength / widthOf(from);
  const [source, target] = [at + 1, at + 1 + bytes.byteLength];
  new Uint8Array(memory.buffer, source, bytes.byteLength).set(bytes);
  const { overflowAt } = caster.cast(from, to, scale, sourceScale, source, target, count);
  return { bytes: new Uint8Array(memory.buffer, target, count * widthOf(to)).slice(), overflowAt };
}

export const casts = (name: string) => bytesAt(`casts/${name}`);

function bytesAt(path: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`../../../fixtures/${path}`, import.meta.url)));
}

export function u16(bytes: Uint8Array): Uint16Array {
  return new Uint16Array(bytes.slice().buffer);
}

export function u32(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.slice().buffer);
}

/** Every 16-bit pattern in order. */
export const everyHalf = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
export const everyCode = Uint8Array.from({ length: 256 }, (_, i) => i);

export interface StoredTensor {
  readonly dtype: FloatDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A golden safetensors file. The goldens are trusted, so nothing is checked. */
export function golden(path: string): Map<string, StoredTensor> {
  const file = bytesAt(path);
  const size = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + size)));
  const tensors = new Map<string, StoredTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries<Record<string, never>>(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = data_offsets as unknown as [number, number];
    const at = { dtype, shape, bytes: file.slice(8 + size + begin, 8 + size + end) };
    tensors.set(name, at as unknown as StoredTensor); // what the format stores under these keys
  }
  return tensors;
}

/** Numbers in [0, 1) that are the same in every run (SplitMix32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}
