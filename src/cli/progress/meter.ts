/** How far a phase has come, how fast it runs, and how long it will still take. Times are seconds of one clock. */
import { formatBytes } from "../../core/figures.ts";
import { formatDuration, formatRate, type PhaseTime } from "../render.ts";

/** The remaining time follows the rate of the last seconds, at least these, or of the last quarter of a longer phase. */
const WINDOW_SECONDS = 15;
const WINDOW_SHARE = 0.25;

/** The rate of the first moments says little: files are opened, and the first bytes go to memory and not to the disk. */
const FIRST_SECONDS = 3;

/** Two marks are at least this far apart. */
const MARK_SECONDS = 0.25;

interface Mark {
  readonly at: number;
  readonly bytes: number;
}

export class PhaseMeter {
  readonly phase: string;
  readonly totalBytes: number;
  readonly #start: number;
  /** progress at earlier times, at most one window old; the first is the start of the window */
  readonly #marks: Mark[];
  #bytes = 0;
  #layer = "";

  /** @param totalBytes 0: the phase counts no bytes */
  constructor(phase: string, totalBytes: number, now: number) {
    this.phase = phase;
    this.totalBytes = totalBytes;
    this.#start = now;
    this.#marks = [{ at: now, bytes: 0 }];
  }

  advance(bytes: number, now: number): void {
    this.#bytes += bytes;
    const marks = this.#marks;
    if (now - marks.at(-1)!.at >= MARK_SECONDS) marks.push({ at: now, bytes: this.#bytes });
    const window = Math.max(WINDOW_SECONDS, WINDOW_SHARE * (now - this.#start));
    while (marks.length > 1 && marks[1]!.at <= now - window) marks.shift();
  }

  /** @param layer number of the last layer that is done, from 0 */
  reach(layer: number, of: number): void {
    this.#layer = `layer ${layer + 1} of ${of}`;
  }

  timeAt(now: number): PhaseTime {
    return { phase: this.phase, seconds: now - this.#start, bytes: this.#bytes };
  }

  /** 0 to 1 */
  get done(): number {
    return this.totalBytes === 0 ? 0 : Math.min(1, this.#bytes / this.totalBytes);
  }

  /** Seconds until the end; null: not known yet. */
  secondsLeft(now: number): number | null {
    const [from] = this.#marks as [Mark];
    const [bytes, seconds] = [this.#bytes - from.bytes, now - from.at];
    if (bytes <= 0 || now - this.#start < FIRST_SECONDS) return null;
    return (Math.max(0, this.totalBytes - this.#bytes) / bytes) * seconds;
  }

  /** What there is to say, by falling importance, in the order in which it is shown. */
  texts(now: number): readonly { readonly text: string; readonly rank: number }[] {
    const { seconds } = this.timeAt(now);
    const left = this.secondsLeft(now);
    return [
      { text: this.#layer, rank: 2 },
      { text: `${formatBytes(this.#bytes)} of ${formatBytes(this.totalBytes)}`, rank: 4 },
      { text: seconds < FIRST_SECONDS ? "" : formatRate(this.#bytes, seconds), rank: 1 },
      { text: clockText(seconds), rank: 3 },
      { text: left === null ? "" : `${clockText(left)} left`, rank: 0 },
    ].filter(({ text }) => text !== "");
  }
}

/** Whole seconds. */
const clockText = (seconds: number): string =>
  seconds < 59.5 ? `${Math.round(seconds)} s` : formatDuration(seconds);

/** `convert: 51 %, layer 27 of 52, 612.0 MiB of 1.2 GiB, 95.2 MiB/s, 6 s, 7 s left` */
export function progressLine(meter: PhaseMeter, now: number): string {
  return `${meter.phase}: ${[percent(meter), ...meter.texts(now).map(({ text }) => text)].join(", ")}`;
}

const percent = (meter: PhaseMeter): string => `${Math.floor(100 * meter.done)} %`;

const [SHORTEST_BAR, LONGEST_BAR] = [12, 40];

/** The same with a bar, in at most `width` columns: what is least important is left out. */
export function progressBar(meter: PhaseMeter, now: number, width: number): string {
  const head = `${meter.phase.padEnd(8)} `;
  const share = `  ${percent(meter).padStart(5)}`;
  let space = width - head.length - share.length - SHORTEST_BAR;
  const texts = meter.texts(now);
  const fitting = new Set<number>();
  for (const { text, rank } of [...texts].sort((a, b) => a.rank - b.rank)) {
    if (text.length + 2 > space) break;
    space -= text.length + 2;
    fitting.add(rank);
  }
  const size = Math.max(1, Math.min(LONGEST_BAR, SHORTEST_BAR + space));
  const full = Math.round(size * meter.done);
  const bar = "━".repeat(full) + "─".repeat(size - full);
  const shown = texts.filter(({ rank }) => fitting.has(rank)).map(({ text }) => `  ${text}`);
  return head + bar + share + shown.join("");
}

/** `convert 6.40 s at 190.1 MiB/s` */
export function phaseText({ phase, seconds, bytes }: PhaseTime): string {
  const took = formatDuration(seconds);
  return bytes === 0 ? `${phase} ${took}` : `${phase} ${took} at ${formatRate(bytes, seconds)}`;
}
