/** Checkpoints in memory, to plant faults in: a copy of real files, its tensors as bytes that a test may change. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodeHeader } from "../../../formats/codec/safetensors.ts";
import { hf } from "../../../formats/hf/format.ts";
import type { Checkpoint } from "../../../src/core/checkpoint.ts";
import { type FloatDType, widthOf } from "../../../src/core/dtype.ts";
import { bitsOfF32, encode, f32OfBits } from "../../../src/core/float.ts";
import { parseJsonObject, stringifyJson } from "../../../src/core/json.ts";
import { arraysOf, floatsOf, type StoredArray } from "../goldens.ts";
import { memoryStore } from "../memory-store.ts";

export interface Copy {
  readonly tensors: Map<string, StoredArray>;
  readonly files: Map<string, Uint8Array>;
}

/** A checkpoint folder, weights and side files; its shards become one file. */
export async function copyOf(folder: string): Promise<Copy> {
  const copy: Copy = { tensors: new Map(), files: new Map() };
  for (const path of readdirSync(folder)) {
    if (/^model.*\.safetensors$/.test(path)) {
      for (const [name, array] of await arraysOf(join(folder, path))) copy.tensors.set(name, array);
    } else if (!/^reference|\.index\.json$/.test(path)) {
      copy.files.set(path, readFileSync(join(folder, path)));
    }
  }
  return copy;
}

/** As a folder. */
export function written({ tensors, files }: Copy, folder: string): string {
  mkdirSync(folder);
  const all = [...tensors].map(([name, array]) => ({ name, ...array }));
  const weights = [encodeHeader(all, { format: "pt" }), ...all.map(({ bytes }) => bytes)];
  for (const [path, bytes] of [...files, ["model.safetensors", Buffer.concat(weights)] as const]) {
    writeFileSync(join(folder, path), bytes);
  }
  return folder;
}

/** As it is read from disk. */
export function opened({ tensors, files }: Copy): Promise<Checkpoint> {
  const all = [...tensors].map(([name, array]) => ({ name, ...array }));
  const weights = Buffer.concat([encodeHeader(all, { format: "pt" }), ...all.map(({ bytes }) => bytes)]);
  return hf.read(memoryStore("memory", new Map([...files, ["model.safetensors", weights]])));
}

/** Verbs that change one copy; the one it was made from keeps its bytes. */
export class Editor {
  readonly copy: Copy;

  constructor({ tensors, files }: Copy) {
    this.copy = { tensors: new Map(tensors), files: new Map(files) };
  }

  get(name: string): StoredArray {
    const array = this.copy.tensors.get(name);
    if (array === undefined) throw new Error(`there is no ${name}`);
    return array;
  }

  put(name: string, array: Partial<StoredArray>): void {
    this.copy.tensors.set(name, { ...this.get(name), ...array });
  }

  add(name: string, dtype: StoredArray["dtype"], shape: readonly number[], bytes: Uint8Array): void {
    this.copy.tensors.set(name, { dtype, shape, bytes });
  }

  drop(name: string): void {
    this.copy.tensors.delete(name);
  }

  bytes(name: string, change: (bytes: Uint8Array) => void): void {
    const bytes = Uint8Array.from(this.get(name).bytes);
    change(bytes);
    this.put(name, { bytes });
  }

  /** Flips the lowest bit of an element. */
  flip(name: string, element = 0): void {
    const width = widthOf(this.get(name).dtype);
    this.bytes(name, (bytes) => {
      bytes[element * width]! ^= 1;
    });
  }

  /** Rows of the first axis in the order that `from` gives: row r becomes what row from(r) was. */
  rows(name: string, from: (row: number, rows: number) => number): void {
    const { shape, bytes } = this.get(name);
    const size = bytes.byteLength / shape[0]!;
    this.bytes(name, (out) => {
      for (let r = 0; r < shape[0]!; r++) {
        const at = from(r, shape[0]!) * size;
        out.set(bytes.subarray(at, at + size), r * size);
      }
    });
  }

  /** `count` rows at a and at b exchanged. */
  swapRows(name: string, a: number, b: number, count: number): void {
    const within = (r: number, at: number) => r >= at && r < at + count;
    this.rows(name, (r) => (within(r, a) ? r - a + b : within(r, b) ? r - b + a : r));
  }

  /** Elements of each row (all axes but the first) in the order that `from` gives. */
  columns(name: string, from: (column: number, columns: number) => number): void {
    const { shape, dtype, bytes } = this.get(name);
    const [width, columns] = [widthOf(dtype), bytes.byteLength / widthOf(dtype) / shape[0]!];
    this.bytes(name, (out) => {
      for (let i = 0; i < shape[0]! * columns; i++) {
        const at = (i - (i % columns) + from(i % columns, columns)) * width;
        out.set(bytes.subarray(at, at + width), i * width);
      }
    });
  }

  swap(a: string, b: string): void {
    const [left, right] = [this.get(a), this.get(b)];
    this.put(a, { bytes: right.bytes });
    this.put(b, { bytes: left.bytes });
  }

  /** Bytes as of a [columns, rows] matrix. */
  transpose(name: string): void {
    const { shape, dtype, bytes } = this.get(name);
    const [[rows, columns], width] = [shape as [number, number], widthOf(dtype)];
    this.bytes(name, (out) => {
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          const at = (r * columns + c) * width;
          out.set(bytes.subarray(at, at + width), (c * rows + r) * width);
        }
      }
    });
  }

  /** BF16 values one by one. */
  values(name: string, change: (value: number, index: number) => number): void {
    this.bytes(name, (bytes) => {
      const words = new Uint16Array(bytes.buffer);
      for (let i = 0; i < words.length; i++) {
        words[i] = encode("BF16", change(f32OfBits((words[i]! << 16) >>> 0), i));
      }
    });
  }

  f32(name: string, change: (value: number, index: number) => number): void {
    const values = floatsOf(this.get(name)).map(change);
    this.put(name, { bytes: new Uint8Array(values.buffer) });
  }

  config(change: Readonly<Record<string, unknown>>): void {
    const text = stringifyJson({ ...this.json("config.json"), ...change });
    this.copy.files.set("config.json", Buffer.from(text));
  }

  json(path: string): Readonly<Record<string, unknown>> {
    return parseJsonObject(this.copy.files.get(path)!, { nonFinite: true });
  }

  text(path: string): string {
    return Buffer.from(this.copy.files.get(path)!).toString();
  }
}

/** A BF16 tensor as FP8 codes under a scale, one element after the other. */
export function codesOf({ bytes }: StoredArray, to: Exclude<FloatDType, "F32">, scale: number): Uint8Array {
  const words = new Uint16Array(Uint8Array.from(bytes).buffer);
  const max = { F8_E4M3: 448, F8_E5M2: 57344, BF16: Infinity, F16: 65504 }[to];
  return Uint8Array.from(words, (word) => {
    const value = Math.fround(f32OfBits((word << 16) >>> 0) / scale);
    return encode(to, Math.max(-max, Math.min(max, value)));
  });
}

export const oneF32 = (value: number): Uint8Array => {
  const bits = bitsOfF32(value);
  return Uint8Array.of(bits & 255, (bits >>> 8) & 255, (bits >>> 16) & 255, bits >>> 24);
};
