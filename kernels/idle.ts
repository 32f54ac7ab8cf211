/** Things that are slow to start, such as threads: after use they wait for a moment for the next user. */

const IDLE_MS = 1000;

export class Idle<T> {
  /** each item, and the timer that ends it */
  readonly #items = new Map<T, NodeJS.Timeout>();
  readonly #end: (item: T) => unknown;

  /** @param end called once for an item that nobody took in time */
  constructor(end: (item: T) => unknown) {
    this.#end = end;
  }

  get items(): readonly T[] {
    return [...this.#items.keys()];
  }

  /** The first item that fits, which the caller owns from now on. */
  take(fits: (item: T) => boolean = () => true): T | undefined {
    const item = this.items.find(fits);
    if (item === undefined) return undefined;
    clearTimeout(this.#items.get(item));
    this.#items.delete(item);
    return item;
  }

  keep(item: T): void {
    const end = () => {
      this.#items.delete(item);
      this.#end(item);
    };
    this.#items.set(item, setTimeout(end, IDLE_MS).unref());
  }
}
