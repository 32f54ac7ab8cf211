/** What a pickle machine holds: a stack with marks, and a memo. Each is limited, and what is below a mark is safe. */
import type { IsologitError } from "../../../src/core/errors.ts";
import type { PickleValue } from "./value.ts";

/**
 * Values that take memory of their own, some 100 bytes each. The largest pickles are `.metadata` files, with 36 such
 * values a stored chunk: room for 140,000 chunks, where a model of 128 experts with its optimizer has some 50,000.
 */
const MAX_NODES = 5_000_000;
/** CPython's pickler fills one for each container and each text, and counts them from 0, once from 1. */
const MAX_MEMO = 5_000_000;
/** Picklers put down 1,000 items at a time, and one for each level of nesting. */
const MAX_STACK = 1_000_000;

/** Makes an error that says where in the pickle it is. */
type PickleFault = (code: "PICKLE_INVALID" | "LIMIT_EXCEEDED", message: string) => IsologitError;

export class PickleStack {
  readonly #items: PickleValue[] = [];
  /** how many items lie below each open mark */
  readonly #marks: number[] = [];
  readonly #memo: (PickleValue | undefined)[] = [];
  readonly #fault: PickleFault;
  #nodes = 0;

  constructor(fault: PickleFault) {
    this.#fault = fault;
  }

  push(value: PickleValue): void {
    if (typeof value !== "number" && typeof value !== "boolean" && value !== null) this.charge(1);
    this.share(value);
  }

  /** Counts work or memory beyond the opcodes' own, as much as `values` values: a few bytes may ask for a large copy. */
  charge(values: number): void {
    this.#nodes += values;
    if (this.#nodes > MAX_NODES) throw this.#limit("values", MAX_NODES);
  }

  /** As `push`, of a value that is held already. */
  share(value: PickleValue): void {
    if (this.#items.push(value) > MAX_STACK) throw this.#limit("stack", MAX_STACK);
  }

  top(): PickleValue {
    if (this.#items.length > this.#floor()) return this.#items.at(-1)!;
    throw this.#fault("PICKLE_INVALID", "the stack is empty");
  }

  pop(): PickleValue {
    const value = this.top();
    this.#items.pop();
    return value;
  }

  /** The last `count` values, in the order in which they came. */
  popMany(count: number): PickleValue[] {
    const from = this.#items.length - count;
    if (from < this.#floor()) throw this.#fault("PICKLE_INVALID", "the stack is empty");
    return this.#items.splice(from);
  }

  mark(): void {
    if (this.#marks.push(this.#items.length) > MAX_STACK) throw this.#limit("marks", MAX_STACK);
  }

  /** All above the last mark, which goes. */
  popMark(): PickleValue[] {
    const from = this.#marks.pop();
    if (from === undefined) throw this.#fault("PICKLE_INVALID", "a mark is missing");
    return this.#items.splice(from);
  }

  /** Drops the last value, or the mark where it comes last. */
  drop(): void {
    if (this.#marks.at(-1) === this.#items.length) this.#marks.pop();
    else this.pop();
  }

  put(slot: number = this.#memo.length): void {
    if (!(slot >= 0 && slot < MAX_MEMO)) throw this.#limit("memo slots", MAX_MEMO);
    this.#memo[slot] = this.top();
  }

  get(slot: number): void {
    const value = this.#memo[slot];
    if (value === undefined) throw this.#fault("PICKLE_INVALID", `memo slot ${slot} is empty`);
    this.share(value);
  }

  #floor(): number {
    return this.#marks.at(-1) ?? 0;
  }

  #limit(what: string, max: number): IsologitError {
    return this.#fault("LIMIT_EXCEEDED", `the pickle has more than ${max} ${what}`);
  }
}
