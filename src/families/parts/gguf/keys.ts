/** Reads the keys of a GGUF, which are the config record of its checkpoint. */
import { IsologitError } from "../../../core/errors.ts";
import type { Config } from "../../structure.ts";

const ARCHITECTURE = "general.architecture";

/** Begins keys of our own with the exact number of another key. */
const EXACT = "isologit.exact.";

/** llama.cpp's limit of layers; it is compared before a list with a number for each layer is used. */
const MAX_LAYERS = 512;

/** Whether a config is that of a GGUF with one of these architectures. */
export function hasArchitecture(config: Config, names: readonly string[]): boolean {
  const name = config[ARCHITECTURE];
  return typeof name === "string" && names.includes(name);
}

/** The keys below the architecture, `A.name`. Each method throws CONFIG_INVALID, with the key, for a value that is not possible. */
export class GgufKeys {
  readonly #config: Config;
  readonly architecture: string;
  /** number of blocks: layers, and one for each prediction step */
  readonly blocks: number;

  constructor(config: Config) {
    this.#config = config;
    this.architecture = String(config[ARCHITECTURE]);
    this.blocks = this.count("block_count");
    if (this.blocks > MAX_LAYERS) this.refuse("block_count", `is at most ${MAX_LAYERS} in llama.cpp`);
  }

  has(name: string): boolean {
    return this.#value(name) !== undefined;
  }

  /** A whole number from 1. */
  count(name: string, absent?: number): number {
    const value = this.#value(name) ?? absent;
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
    return this.refuse(name, "must be a whole number from 1");
  }

  /**
   * A finite number. The file has F32: the number of `exactKeys` is returned, or the shortest decimal that rounds to the same F32,
   * as a config has it.
   */
  number(name: string, absent?: number): number {
    const value = this.#value(name) ?? absent;
    if (typeof value !== "number" || !Number.isFinite(value)) return this.refuse(name, "must be a number");
    const exact = this.#config[EXACT + this.#key(name)];
    return typeof exact === "number" && Math.fround(exact) === Math.fround(value)
      ? exact
      : shortestDecimal(value);
  }

  text(name: string, absent: string): string {
    const value = this.#value(name) ?? absent;
    return typeof value === "string" ? value : this.refuse(name, "must be a text");
  }

  flag(name: string, absent: boolean): boolean {
    const value = this.#value(name) ?? absent;
    return typeof value === "boolean" ? value : this.refuse(name, "must be true or false");
  }

  /** One whole number from 0 for each block; a single number stands for all. */
  perBlock(name: string): readonly number[] {
    const value = this.#value(name);
    const list = typeof value === "number" ? new Array<unknown>(this.blocks).fill(value) : value;
    const isWhole = (n: unknown): n is number => typeof n === "number" && Number.isSafeInteger(n) && n >= 0;
    if (Array.isArray(list) && list.length === this.blocks && list.every(isWhole)) return list;
    return this.refuse(name, `must be a list of ${this.blocks} whole numbers from 0, one for each block`);
  }

  /** The value that all these blocks have. */
  common(name: string, blocks: readonly number[]): number {
    const values = this.perBlock(name);
    const [first = 0, ...others] = blocks.map((block) => values[block]!);
    if (others.some((value) => value !== first)) {
      const message = `${this.architecture}.${name} has several values among layers of one kind; models with one value are read`;
      throw new IsologitError("UNSUPPORTED", message);
    }
    return first;
  }

  /** @throws CONFIG_INVALID */
  refuse(name: string, rule: string): never {
    const key = this.#key(name);
    const value = this.#value(name);
    const found = value === undefined ? "is absent" : `is ${JSON.stringify(value)}`;
    throw new IsologitError("CONFIG_INVALID", `the key ${key} ${found}; it ${rule}`);
  }

  #key(name: string): string {
    return `${this.architecture}.${name}`;
  }

  #value(name: string): unknown {
    return this.#config[this.#key(name)] ?? undefined;
  }
}

/**
 * Keys of our own, `isologit.exact.KEY`, for the numbers that their F32 does not give back.
 *
 * @param keys below the architecture
 */
export function exactKeys(keys: Config, architecture: string): Config {
  const isLost = (value: unknown): value is number =>
    typeof value === "number" && !Number.isInteger(value) && shortestDecimal(value) !== value;
  const lost = Object.entries(keys).filter(([, value]) => isLost(value));
  return Object.fromEntries(lost.map(([name, value]) => [`${EXACT}${architecture}.${name}`, value]));
}

/** The shortest decimal whose nearest F32 is that of `value`. */
function shortestDecimal(value: number): number {
  const single = Math.fround(value);
  for (let digits = 1; digits < 10; digits++) {
    const decimal = Number(single.toPrecision(digits));
    if (Math.fround(decimal) === single) return decimal;
  }
  return single;
}
