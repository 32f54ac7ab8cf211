/**
 * The header of a GGUF file, read from front to back in windows. A header does not give its own length, and that of a large
 * vocabulary has several megabytes: the first window opens a small file, the second one nearly every other file.
 */
import type { Span } from "../../../src/core/checkpoint.ts";
import { type ErrorCode, type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import type { ByteSource } from "../../../src/core/io.ts";

const FIRST_WINDOW_BYTES = 64 * 1024;
const WINDOW_BYTES = 8 * 1024 * 1024;
/** A vocabulary of 262,144 tokens with its merges takes 15 MB. */
export const MAX_HEADER_BYTES = 256 * 1024 * 1024;

export class HeaderInput {
  readonly file: string;
  readonly #source: ByteSource;
  /** bytes of the file from offset `#start`, of which those before `at` are read */
  #view = new DataView(new ArrayBuffer(0));
  #start = 0;
  /** offset in the file of the next byte */
  at = 0;

  constructor(source: ByteSource, file: string) {
    this.#source = source;
    this.file = file;
  }

  /** bytes of the whole file */
  get size(): number {
    return this.#source.size;
  }

  fail(code: ErrorCode, message: string, at: ErrorLocation = {}): IsologitError {
    return new IsologitError(code, message, { file: this.file, offset: this.at, ...at });
  }

  /** Refuses a count of the file before it is used: `count` things of at least `each` bytes must fit into the rest of the file. */
  claim(count: bigint, each: number, what: string): number {
    const bytes = count * BigInt(each);
    if (bytes > MAX_HEADER_BYTES) {
      const message = `the header claims ${count} ${what}; at most ${MAX_HEADER_BYTES} bytes of header are read`;
      throw this.fail("LIMIT_EXCEEDED", message);
    }
    if (bytes > this.size - this.at) {
      const message = `the header claims ${count} ${what}; the file has ${this.size - this.at} more bytes`;
      throw this.fail("TRUNCATED", message);
    }
    return Number(count);
  }

  /** Makes the next `count` bytes available to the methods below. Call it only if `has(count)` is false: it is slower. */
  async fill(count: number): Promise<void> {
    this.claim(BigInt(count), 1, "bytes");
    if (this.at + count > MAX_HEADER_BYTES) {
      const message = `the header does not end within ${MAX_HEADER_BYTES} bytes`;
      throw this.fail("LIMIT_EXCEEDED", message);
    }
    const window = this.at === 0 ? FIRST_WINDOW_BYTES : WINDOW_BYTES;
    const bytes = new Uint8Array(Math.min(Math.max(count, window), this.size - this.at));
    const end = this.#start + this.#view.byteLength;
    const kept = Math.max(0, end - this.at);
    bytes.set(new Uint8Array(this.#view.buffer, this.#view.byteLength - kept, kept));
    await this.#source.readInto(bytes.subarray(kept), this.at + kept);
    this.#view = new DataView(bytes.buffer);
    this.#start = this.at;
  }

  /** The place of the next `size` bytes. */
  span(size: number): Span {
    return { file: this.file, offset: this.at, size };
  }

  has(count: number): boolean {
    return this.at + count <= this.#start + this.#view.byteLength;
  }

  /** The next `count` bytes; they are valid until the next `fill`. */
  take(count: number): Uint8Array {
    const bytes = new Uint8Array(this.#view.buffer, this.at - this.#start, count);
    this.at += count;
    return bytes;
  }

  /** Passes `count` bytes. @returns their place in the window */
  #next(count: number): number {
    const from = this.at - this.#start;
    this.at += count;
    return from;
  }

  u8(): number {
    return this.#view.getUint8(this.#next(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#next(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#next(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#next(8), true);
  }

  f32(): number {
    return this.#view.getFloat32(this.#next(4), true);
  }

  f64(): number {
    return this.#view.getFloat64(this.#next(8), true);
  }

  /** Bytes of the string that follows. @throws as `claim` */
  async stringLength(what: string): Promise<number> {
    if (!this.has(8)) await this.fill(8);
    return this.claim(this.u64(), 1, `bytes of ${what}`);
  }

  /** The string that follows. It must be UTF-8, so that two different strings of bytes are never one name. */
  async name(what: string, maxBytes: number): Promise<string> {
    const at = this.at;
    const length = await this.stringLength(what);
    if (length === 0 || length > maxBytes) {
      const message = `${what} has ${length} bytes; 1 to ${maxBytes} are read`;
      throw this.fail("NAME_INVALID", message, { offset: at });
    }
    if (!this.has(length)) await this.fill(length);
    try {
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(length));
      if (!/\p{Cc}/u.test(text)) return text;
    } catch {
      throw this.fail("NAME_INVALID", `${what} is not UTF-8`, { offset: at });
    }
    throw this.fail("NAME_INVALID", `${what} holds a control character`, { offset: at });
  }

  /** Passes over bytes, without reading those beyond the window. */
  skip(count: number): void {
    this.claim(BigInt(count), 1, "bytes");
    this.at += count;
  }
}
