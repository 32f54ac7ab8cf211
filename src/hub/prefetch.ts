/**
 * Files fetched whole in the order in which they will be read, a few at a time, from the first read on and for as long
 * as a reader is there.
 */
import { raceAbort } from "../io/retry.ts";
import type { HubFile } from "./listing.ts";

/** Enough to fill a line through one far connection each; more would spread a slow line thin. */
const AT_ONCE = 4;

type Fetch = (file: HubFile, signal: AbortSignal) => Promise<string>;

export class Prefetch {
  readonly #order: readonly HubFile[];
  readonly #fetch: Fetch;
  readonly #started = new Map<string, Promise<string>>();
  #running = 0;
  #readers = 0;
  #over = new AbortController();

  constructor(order: readonly HubFile[], fetch: Fetch) {
    this.#order = order;
    this.#fetch = fetch;
  }

  /** A reader is there. When the last has gone, what is under way stops; a later reader goes on from there. */
  enter(): AsyncDisposable {
    this.#readers++;
    return {
      [Symbol.asyncDispose]: async () => {
        if (--this.#readers > 0) return;
        this.#over.abort();
        this.#over = new AbortController();
        const under = [...this.#started.values()];
        this.#started.clear();
        await Promise.allSettled(under);
      },
    };
  }

  /** @returns where the whole file is */
  async whole(file: HubFile, signal?: AbortSignal): Promise<string> {
    const path = this.#start(file);
    this.#fill();
    return await raceAbort(path, signal);
  }

  #start(file: HubFile): Promise<string> {
    const known = this.#started.get(file.path);
    if (known !== undefined) return known;
    this.#running++;
    const path = this.#fetch(file, this.#over.signal);
    this.#started.set(file.path, path);
    const ended = (next: () => void) => {
      this.#running--;
      next();
    };
    path.then(
      () => ended(() => this.#fill()),
      () => ended(() => {}), // whoever reads it has the error
    );
    return path;
  }

  #fill(): void {
    for (const file of this.#order) {
      if (this.#running >= AT_ONCE || this.#readers === 0) return;
      this.#start(file);
    }
  }
}
