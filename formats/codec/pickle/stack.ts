/** The state of a pickle reader: a stack with marks, and a memo. Each has a limit, and items below a mark cannot be taken. */
import type { IsologitError } from "../../../src/core/errors.ts";
import type { PickleValue } from "./value.ts";

/**
 * Values that take memory, some 100 bytes each. The largest pickles are `.metadata` files, with 36 such values for each
 * chunk: enough for 140,000 chunks. A model of 128 experts with its optimizer has some 50,000.
 */
const MAX_NODES = 5_000_000;
/** Memo entries. CPython's pickler makes one for each container and each text, numbered from 0 (older versions: from 1). */
const MAX_MEMO = 5_000_000;
/** Picklers push 1,000 items at a time, and one for each level of nesting. */
const MAX_STACK = 1_000_000;

/** Makes an error with the place in the pickle. */
type PickleFault = (code: "PICKLE_INVALID" | "LIMIT_EXCEEDED", message: string) => IsologitError;

export class PickleStack {
  readonly #items: PickleValue[] = [];
  /** number of items below each open mark */
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

  /** Counts work or memory of `values` values beyond the opcodes themselves: a few bytes may ask for a large copy. */
  charge(values: number): void {
    this.#nodes += values;
    if (this.#nodes > MAX_NODES) throw this.#limit("values", MAX_NODES);
  }

  /** Like `push`, for a value that is counted already. */
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

  /** Takes the last `count` values, in the order in which they were pushed. */
  popMany(count: number): PickleValue[] {
    const from = this.#items.length - count;
    if (from < this.#floor()) throw this.#fault("PICKLE_INVALID", "the stack is empty");
    return this.#items.splice(from);
  }

  mark(): void {
    if (this.#marks.push(this.#items.length) > MAX_STACK) throw this.#limit("marks", MAX_STACK);
  }

  /** Takes all values above the last mark, and removes the mark. */
  popMark(): PickleValue[] {
    const from = this.#marks.pop();
    if (from === undefined) throw this.#fault("PICKLE_INVALID", "a mark is missing");
    return this.#items.splice(from);
  }

  /** Drops the last value, or the mark if it is last. */
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
