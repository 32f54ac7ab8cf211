/** The code of this project that ran, block by block, as V8 counts it. */
import { type Profiler, Session } from "node:inspector";

/** Scripts that count: parsers and what they call, not the fuzzer. */
const OWN = /\/dist\/(src\/|formats\/|test\/fuzz\/guided\/planted)/;

export class Coverage {
  readonly #session = new Session();
  /** by script: one byte for each character of its text, 1 if it ever ran */
  readonly #ran = new Map<string, Uint8Array>();

  constructor() {
    this.#session.connect();
    this.#session.post("Profiler.enable");
    this.#session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  }

  /** Everything is new again, for another parser. */
  forget(): void {
    this.#ran.clear();
  }

  /** The number of characters that ran since the last call, and never before; they stay new. */
  fresh(): number {
    return this.#look(false);
  }

  /** As `fresh`, and they are no longer new. */
  take(): number {
    return this.#look(true);
  }

  #look(keeps: boolean): number {
    let fresh = 0;
    // `post` is synchronous in the thread of the session
    this.#session.post("Profiler.takePreciseCoverage", (error, { result }) => {
      if (error !== null) throw error;
      for (const { url, functions } of result)
        if (OWN.test(url)) for (const { ranges } of functions) fresh += this.#freshIn(url, ranges, keeps);
    });
    return fresh;
  }

  #freshIn(url: string, ranges: readonly Profiler.CoverageRange[], keeps: boolean): number {
    const [whole] = ranges;
    if (whole === undefined || whole.count === 0) return 0;
    const { startOffset: start, endOffset: end } = whole;
    const ran = this.#textOf(url, end);
    const now = new Uint8Array(end - start).fill(1);
    // inner ranges follow outer ones
    for (const range of ranges)
      now.fill(range.count > 0 ? 1 : 0, range.startOffset - start, range.endOffset - start);
    let fresh = 0;
    for (let i = 0; i < now.byteLength; i++) {
      if (now[i] === 0 || ran[start + i] === 1) continue;
      fresh++;
      if (keeps) ran[start + i] = 1;
    }
    return fresh;
  }

  #textOf(url: string, size: number): Uint8Array {
    const known = this.#ran.get(url);
    if (known !== undefined && known.byteLength >= size) return known;
    const larger = new Uint8Array(Math.max(size, 65_536));
    if (known !== undefined) larger.set(known);
    this.#ran.set(url, larger);
    return larger;
  }
}
