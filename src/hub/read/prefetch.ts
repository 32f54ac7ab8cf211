/**
 * Downloads whole files in the order in which they will be read, a few at a time. Starts with the first read and runs
 * as long as there are readers.
 */
import { raceAbort } from "../../io/retry.ts";
import type { HubFile } from "../files.ts";

/** Enough connections to use a fast network; more would make each file slow on a slow network. */
const AT_ONCE = 4;

type FetchFile = (file: HubFile, signal: AbortSignal) => Promise<string>;

export class Prefetch {
  readonly #order: readonly HubFile[];
  readonly #fetch: FetchFile;
  readonly #started = new Map<string, Promise<string>>();
  #running = 0;
  #readers = 0;
  #over = new AbortController();

  constructor(order: readonly HubFile[], fetch: FetchFile) {
    this.#order = order;
    this.#fetch = fetch;
  }

  /** Adds a reader. Downloads stop when the last reader is disposed, and continue with a later reader. */
  addReader(): AsyncDisposable {
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

  /** @returns the path of the downloaded file */
  async fetchWhole(file: HubFile, signal?: AbortSignal): Promise<string> {
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
      () => ended(() => {}), // the reader of the file gets the error
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
