/**
 * Writes pickles of protocol 2, like torch, with the values that checkpoints need. There is no memo: a value that is used
 * twice is written twice. So the value must be a tree, and equal values give equal bytes.
 */
import { IsologitError } from "../../../src/core/errors.ts";

export type WrittenValue =
  | null
  | boolean
  | string
  | bigint
  /** an int; a float is `{ float }` */
  | number
  | { readonly float: number }
  | { readonly list: readonly WrittenValue[] }
  | { readonly tuple: readonly WrittenValue[] }
  | { readonly dict: Iterable<readonly [WrittenValue, WrittenValue]> }
  /** a class or a function by its dotted name, such as `collections.OrderedDict` */
  | { readonly global: string }
  /** the result of `reduce` called with `args` */
  | Made<{ readonly reduce: WrittenValue }>
  /** a new object of the class `newobj` */
  | Made<{ readonly newobj: WrittenValue }>
  /** an id that the reader looks up outside the pickle */
  | { readonly persid: WrittenValue };

/** `state` is given to the object, then `entries` put into it. */
type Made<How> = How & {
  readonly args: readonly WrittenValue[];
  readonly state?: WrittenValue;
  readonly entries?: Iterable<readonly [WrittenValue, WrittenValue]>;
};

/** Opcodes, with the names of pickletools. */
const OP = {
  MARK: 0x28,
  STOP: 0x2e,
  NONE: 0x4e,
  NEWTRUE: 0x88,
  NEWFALSE: 0x89,
  BININT: 0x4a,
  BININT1: 0x4b,
  BININT2: 0x4d,
  LONG1: 0x8a,
  BINFLOAT: 0x47,
  BINUNICODE: 0x58,
  EMPTY_LIST: 0x5d,
  APPENDS: 0x65,
  EMPTY_TUPLE: 0x29,
  TUPLE: 0x74,
  TUPLE1: 0x85,
  EMPTY_DICT: 0x7d,
  SETITEMS: 0x75,
  GLOBAL: 0x63,
  REDUCE: 0x52,
  NEWOBJ: 0x81,
  BUILD: 0x62,
  BINPERSID: 0x51,
  PROTO: 0x80,
} as const;

/** Largest number of items on the stack of a reader, as in CPython's pickler. */
const BATCH = 1000;

/** @throws INTERNAL for a number that is not a safe int, and for a name without a module */
export function writePickle(value: WrittenValue): Uint8Array {
  const writer = new Writer();
  writer.bytes(OP.PROTO, 2);
  writer.value(value);
  writer.bytes(OP.STOP);
  return writer.finished();
}

class Writer {
  #bytes = Buffer.alloc(1024);
  #size = 0;

  /** The next `count` bytes of the pickle, to be filled. */
  #next(count: number): Buffer {
    if (this.#size + count > this.#bytes.byteLength) {
      this.#bytes = Buffer.concat([this.#bytes], 2 * this.#bytes.byteLength + count);
    }
    this.#size += count;
    return this.#bytes.subarray(this.#size - count, this.#size);
  }

  bytes(...bytes: readonly number[]): void {
    this.#next(bytes.length).set(bytes);
  }

  finished(): Uint8Array {
    return new Uint8Array(this.#bytes.subarray(0, this.#size));
  }

  value(value: WrittenValue): void {
    if (value === null) this.bytes(OP.NONE);
    else if (typeof value === "boolean") this.bytes(value ? OP.NEWTRUE : OP.NEWFALSE);
    else if (typeof value === "string") this.#text(value);
    else if (typeof value === "number" || typeof value === "bigint") this.#int(value);
    else if ("float" in value) this.#float(value.float);
    else if ("list" in value) this.#list(value.list);
    else if ("tuple" in value) this.#tuple(value.tuple);
    else if ("dict" in value) {
      this.bytes(OP.EMPTY_DICT);
      this.#entries(value.dict);
    } else if ("global" in value) this.#global(value.global);
    else if ("persid" in value) {
      this.value(value.persid);
      this.bytes(OP.BINPERSID);
    } else this.#made(value);
  }

  #text(text: string): void {
    const size = Buffer.byteLength(text);
    const bytes = this.#next(5 + size);
    bytes[0] = OP.BINUNICODE;
    bytes.writeUInt32LE(size, 1);
    bytes.write(text, 5);
  }

  #int(value: number | bigint): void {
    if (typeof value === "number" && !Number.isSafeInteger(value)) {
      throw new IsologitError("INTERNAL", `${value} cannot be pickled as an int`);
    }
    const int = BigInt(value);
    if (int >= 0n && int < 1n << 8n) this.bytes(OP.BININT1, Number(int));
    else if (int >= 0n && int < 1n << 16n) this.bytes(OP.BININT2, Number(int & 255n), Number(int >> 8n));
    else if (BigInt.asIntN(32, int) === int) {
      const bytes = this.#next(5);
      bytes[0] = OP.BININT;
      bytes.writeInt32LE(Number(int), 1);
    } else {
      let size = 1;
      while (BigInt.asIntN(8 * size, int) !== int) size++;
      if (size > 255) throw new IsologitError("INTERNAL", "an int of more than 255 bytes cannot be pickled");
      const byte = (_: unknown, i: number) => Number((int >> BigInt(8 * i)) & 255n);
      this.bytes(OP.LONG1, size, ...Array.from({ length: size }, byte));
    }
  }

  #float(value: number): void {
    const bytes = this.#next(9);
    bytes[0] = OP.BINFLOAT;
    bytes.writeDoubleBE(value, 1);
  }

  #list(items: readonly WrittenValue[]): void {
    this.bytes(OP.EMPTY_LIST);
    for (let i = 0; i < items.length; i += BATCH) {
      this.bytes(OP.MARK);
      for (const item of items.slice(i, i + BATCH)) this.value(item);
      this.bytes(OP.APPENDS);
    }
  }

  #tuple(items: readonly WrittenValue[]): void {
    const { length } = items;
    if (length > 3) this.bytes(OP.MARK);
    for (const item of items) this.value(item);
    this.bytes(length > 3 ? OP.TUPLE : length === 0 ? OP.EMPTY_TUPLE : OP.TUPLE1 + length - 1);
  }

  #entries(entries: Iterable<readonly [WrittenValue, WrittenValue]>): void {
    const all = [...entries];
    for (let i = 0; i < all.length; i += BATCH) {
      this.bytes(OP.MARK);
      for (const pair of all.slice(i, i + BATCH)) for (const value of pair) this.value(value);
      this.bytes(OP.SETITEMS);
    }
  }

  #global(name: string): void {
    const dot = name.lastIndexOf(".");
    if (dot < 1 || name.includes("\n")) {
      throw new IsologitError("INTERNAL", `${JSON.stringify(name)} cannot be pickled as a dotted name`);
    }
    this.bytes(OP.GLOBAL, ...Buffer.from(`${name.slice(0, dot)}\n${name.slice(dot + 1)}\n`));
  }

  #made(value: Extract<WrittenValue, { readonly args: readonly WrittenValue[] }>): void {
    this.value("reduce" in value ? value.reduce : value.newobj);
    this.#tuple(value.args);
    this.bytes("reduce" in value ? OP.REDUCE : OP.NEWOBJ);
    if (value.state !== undefined) {
      this.value(value.state);
      this.bytes(OP.BUILD);
    }
    if (value.entries !== undefined) this.#entries(value.entries);
  }
}
