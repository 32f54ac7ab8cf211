/** Small GGUF files, written by hand: one byte of them can be changed where a test needs it. */

type Field = readonly [
  type: "u8" | "u16" | "u32" | "i32" | "f32" | "u64" | "i64" | "bool" | "string",
  value: unknown,
];

const NUMBERS = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
};

export interface GgufFile {
  readonly keys?: readonly (
    | readonly [key: string, ...Field]
    | readonly [key: string, type: "raw", bytes: Uint8Array]
  )[];
  /** dims fastest first; bytes of each */
  readonly tensors?: readonly {
    readonly name: string;
    readonly dims: readonly number[];
    readonly type: number;
    readonly bytes: number;
  }[];
  readonly alignment?: number;
  /** bytes after the last tensor's padding */
  readonly trailing?: number;
  /** byte between header and data */
  readonly padding?: number;
}

/** The bytes of a file of version 3. */
export function ggufBytes(file: GgufFile): Uint8Array {
  const { keys = [], tensors = [], alignment = 32, trailing = 0, padding = 0 } = file;
  const parts: Buffer[] = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(keys.length)];
  for (const [key, type, value] of keys)
    parts.push(
      text(key),
      ...(type === "raw" ? [Buffer.from(value as Uint8Array)] : [u32(NUMBERS[type]), scalar([type, value])]),
    );
  let offset = 0;
  for (const { name, dims, type, bytes } of tensors) {
    parts.push(text(name), u32(dims.length), ...dims.map(u64), u32(type), u64(offset));
    offset += Math.ceil(bytes / alignment) * alignment;
  }
  const header = Buffer.concat(parts);
  const gap = (alignment - (header.byteLength % alignment)) % alignment;
  return Uint8Array.from(
    Buffer.concat([header, Buffer.alloc(gap, padding), Buffer.alloc(offset + trailing)]),
  );
}

/** Type and value of a list of strings. */
export function strings(values: Iterable<string>): Uint8Array {
  const all = [...values].map(text);
  return Buffer.concat([u32(NUMBERS.array), u32(NUMBERS.string), u64(all.length), ...all]);
}

/** Type and value of a list of one byte each. */
export function bytesList(type: "u8" | "bool", count: number, value: number): Uint8Array {
  return Buffer.concat([u32(NUMBERS.array), u32(NUMBERS[type]), u64(count), Buffer.alloc(count, value)]);
}

function scalar([type, value]: Field): Buffer {
  switch (type) {
    case "string":
      return text(value as string);
    case "bool":
    case "u8":
      return Buffer.from([Number(value)]);
    case "u16": {
      const bytes = Buffer.alloc(2);
      bytes.writeUInt16LE(value as number);
      return bytes;
    }
    case "f32": {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(value as number);
      return bytes;
    }
    case "u64":
    case "i64": {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value as number | bigint)));
      return bytes;
    }
    default:
      return u32((value as number) >>> 0);
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
