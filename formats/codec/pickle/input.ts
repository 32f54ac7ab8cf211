/** Reads the bytes of a pickle forwards. Every length in the pickle is compared with the bytes that are left. */
import { IsologitError } from "../../../src/core/errors.ts";

/** CPython refuses decimals with more digits, because their conversion takes quadratic time (CVE-2020-10735). */
const MAX_DIGITS = 4300;
/** Limit of this reader: the longest int in checkpoints is the state of a random generator, 2.5 kB. */
const MAX_INT_BYTES = 4096;
/** Limit of this reader: lines are names, numbers and quoted text of protocols 0 and 1. */
const MAX_LINE_BYTES = 1024 * 1024;

const ESCAPES: ReadonlyMap<string, string> = new Map(
  Object.entries({ n: "\n", t: "\t", r: "\r", "\\": "\\", "'": "'", '"': '"' }),
);

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class PickleInput {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #file: string;
  readonly #base: number;
  /** bytes from the start */
  offset = 0;

  /** @param base where the bytes start in `file` */
  constructor(bytes: Uint8Array, file: string, base: number) {
    this.#base = base;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#file = file;
  }

  /** Moves past `count` bytes. @returns where they start. @throws TRUNCATED */
  #skip(count: number): number {
    const from = this.offset;
    const left = this.#bytes.byteLength - from;
    if (count > left)
      throw this.fault("TRUNCATED", `the pickle asks for ${count} bytes where ${left} are left`);
    this.offset += count;
    return from;
  }

  u8 = (): number => this.#view.getUint8(this.#skip(1));
  u16 = (): number => this.#view.getUint16(this.#skip(2), true);
  u32 = (): number => this.#view.getUint32(this.#skip(4), true);
  i32 = (): number => this.#view.getInt32(this.#skip(4), true);
  /** From protocol 1 on, floats are big-endian. */
  f64 = (): number => this.#view.getFloat64(this.#skip(8));

  /** @throws SIZE_UNSAFE beyond 2^53 */
  u64 = (): number => {
    const value = this.#view.getBigUint64(this.#skip(8), true);
    if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
    throw this.fault("SIZE_UNSAFE", `the pickle asks for ${value} bytes`);
  };

  /** @throws TRUNCATED if fewer than `count` bytes are left */
  demand(count: number): void {
    const from = this.#skip(count);
    this.offset = from;
  }

  bytes(count: number): Uint8Array {
    const from = this.#skip(count);
    return this.#bytes.subarray(from, from + count);
  }

  text(count: number): string {
    if (count < 0) throw this.fault("PICKLE_INVALID", `a text of ${count} bytes`);
    return this.#decode(this.bytes(count));
  }

  /** Two's complement, little-endian. */
  int(count: number): number | bigint {
    if (count < 0 || count > MAX_INT_BYTES) {
      throw this.fault("LIMIT_EXCEEDED", `an int of ${count} bytes; at most ${MAX_INT_BYTES} are read`);
    }
    if (count === 0) return 0;
    const hex = Buffer.from(this.bytes(count)).reverse().toString("hex");
    return narrow(BigInt.asIntN(8 * count, BigInt(`0x${hex}`)));
  }

  /** The text up to the next newline; moves past the newline. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.offset);
    if (end < 0) throw this.fault("TRUNCATED", "a line of the pickle has no end");
    if (end - this.offset > MAX_LINE_BYTES) {
      throw this.fault("LIMIT_EXCEEDED", `a line of the pickle is longer than ${MAX_LINE_BYTES} bytes`);
    }
    const text = this.text(end - this.offset);
    this.offset++;
    return text;
  }

  /** A decimal on a line; protocol 0 writes True and False as 01 and 00. */
  intLine(): number | bigint | boolean {
    const text = this.line();
    if (text === "00" || text === "01") return text === "01";
    const digits = /^\+?(-?\d+)L?$/.exec(text)?.[1];
    if (digits !== undefined && digits.length <= MAX_DIGITS) return narrow(BigInt(digits));
    throw this.fault("PICKLE_INVALID", "a line of the pickle is not an int");
  }

  floatLine(): number {
    const text = this.line();
    const [, sign, word] = /^([+-]?)(inf|nan)$/.exec(text) ?? [];
    if (word !== undefined) return word === "nan" ? Number.NaN : Number(`${sign}Infinity`);
    if (/^[+-]?[\d.]+(e[+-]?\d+)?$/.test(text) && !Number.isNaN(Number(text))) return Number(text);
    throw this.fault("PICKLE_INVALID", "a line of the pickle is not a float");
  }

  /** Quoted text on a line, as Python's repr writes it. */
  quotedLine(): string {
    const [, , inner] = /^(['"])(.*)\1$/s.exec(this.line()) ?? [];
    if (inner === undefined) throw this.fault("PICKLE_INVALID", "a line of the pickle is not quoted text");
    return inner.replace(/\\(?:x([0-9a-f]{2})|(.))/g, (all, hex?: string, char?: string) =>
      hex !== undefined ? charOf(hex) : (ESCAPES.get(char!) ?? all),
    );
  }

  /** Text on a line, encoded as Python's "raw-unicode-escape". */
  escapedLine(): string {
    return this.line().replace(/\\u([0-9a-f]{4})/gi, (_, hex: string) => charOf(hex));
  }

  #decode(bytes: Uint8Array): string {
    try {
      return utf8.decode(bytes);
    } catch (cause) {
      // Python writes half surrogate pairs ("surrogatepass"); no name of a tensor or a class has one.
      throw this.fault("PICKLE_INVALID", "text in the pickle is not UTF-8", cause);
    }
  }

  fault(
    code: "PICKLE_INVALID" | "TRUNCATED" | "LIMIT_EXCEEDED" | "SIZE_UNSAFE",
    message: string,
    cause?: unknown,
  ): IsologitError {
    return new IsologitError(
      code,
      message,
      { file: this.#file, offset: this.#base + this.offset },
      { cause },
    );
  }
}

const charOf = (hex: string): string => String.fromCharCode(Number.parseInt(hex, 16));

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
