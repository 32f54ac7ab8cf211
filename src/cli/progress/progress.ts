/** Progress on stderr: a bar on a terminal; elsewhere a line for each phase, and one every half a minute. */
import type { Event } from "../../core/events.ts";
import { escapeControls, formatBytes } from "../../core/figures.ts";
import type { Io, Output } from "../io.ts";
import { isDumb, type PhaseTime } from "../render.ts";
import { PhaseMeter, phaseText, progressBar, progressLine } from "./meter.ts";

interface ProgressOutput extends Disposable {
  readonly watch: (event: Event) => void;
  /** prints one line; the bar, if there is one, is redrawn below it */
  readonly printLine: (line: string) => void;
  /** the phases so far, in order */
  readonly phases: () => readonly PhaseTime[];
}

interface ProgressOptions {
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly progress: boolean;
}

/** Without a bar, a line is printed after each such time. */
const LINE_SECONDS = 30;

const isSet = (value: string | undefined): boolean =>
  value !== undefined && value !== "" && value !== "false";

/** @param clock seconds */
export async function openProgress(
  io: Io,
  options: ProgressOptions,
  clock: () => number = () => performance.now() / 1000,
): Promise<ProgressOutput> {
  const { quiet, verbose, progress } = options;
  // With --verbose every tensor has a line, and a bar between the lines would flicker.
  const hasBar = !quiet && progress && !verbose && io.stderr.isTTY && !isDumb(io) && !isSet(io.env.CI);
  const bar = hasBar ? await barOn(io.stderr, clock) : undefined;
  const ended: PhaseTime[] = [];
  let meter: PhaseMeter | undefined;
  let lastLine = 0;
  const printLine = (line: string) => {
    if (quiet) return;
    bar?.pause();
    io.stderr.write(`${line}\n`);
    bar?.resume();
  };
  const end = (now: number) => {
    if (meter === undefined) return;
    const time = meter.timeAt(now);
    ended.push(time);
    meter = undefined;
    bar?.show(undefined);
    if (bar !== undefined && time.bytes > 0) printLine(`${phaseText(time)}, ${formatBytes(time.bytes)}`);
  };
  const watch = (event: Event) => {
    const now = clock();
    if (event.type === "phase") {
      end(now);
      meter = new PhaseMeter(event.phase, event.totalBytes ?? 0, now);
      lastLine = now;
      if (meter.totalBytes > 0) bar?.show(meter);
    } else if (event.type === "advance") meter?.advance(event.bytes, now);
    else if (event.type === "layer") meter?.reach(event.layer, event.of);
    const line = bar !== undefined && event.type === "phase" ? undefined : lineOf(event, verbose);
    if (line !== undefined) printLine(line);
    else if (bar === undefined && meter !== undefined && now - lastLine >= LINE_SECONDS) {
      lastLine = now;
      if (meter.totalBytes > 0) printLine(progressLine(meter, now));
    }
  };
  return {
    watch,
    printLine,
    phases: () => (meter === undefined ? ended : [...ended, meter.timeAt(clock())]),
    [Symbol.dispose]: () => end(clock()),
  };
}

/** The line for an event, if it has one. Warnings have none: they are printed once at the end. */
function lineOf(event: Event, verbose: boolean): string | undefined {
  switch (event.type) {
    case "phase":
      return event.totalBytes === undefined
        ? event.phase
        : `${event.phase}: ${formatBytes(event.totalBytes)}`;
    case "rung":
      return `${event.rung}: ${event.verdict}`;
    case "file":
      return `${escapeControls(event.path)}: ${formatBytes(event.bytes)}${event.fetched === 0 ? ", already here" : ""}`;
    case "tensor":
      return verbose ? `${escapeControls(event.name)}: ${formatBytes(event.bytes)}` : undefined;
    case "layer":
      return verbose ? `layer ${event.layer + 1} of ${event.of}: ${event.kind}` : undefined;
    case "retry":
      return `${escapeControls(event.message)}; trying again in ${event.waitSeconds.toFixed(1)} s`;
    case "note":
      return verbose ? escapeControls(event.message) : undefined;
    case "submitted":
      return `submitted: ${event.jobs.map(escapeControls).join(", ")}`;
    case "tasks": {
      const states = [`${event.done} done`, `${event.running} running`, `${event.waiting} waiting`];
      return `tasks: ${[...states, ...(event.failed === 0 ? [] : [`${event.failed} failed`])].join(", ")}`;
    }
    case "advance":
    case "warning":
      return undefined;
    default:
      return event satisfies never;
  }
}

/** One bar, for the current phase. Its library is loaded only on a terminal. */
async function barOn(stderr: Output, clock: () => number) {
  const { SingleBar } = await import("cli-progress");
  let meter: PhaseMeter | undefined;
  const bar = new SingleBar({
    stream: stderr,
    // one column stays free: a full line wraps on some terminals
    format: () => (meter === undefined ? "" : progressBar(meter, clock(), (stderr.columns ?? 80) - 1)),
    clearOnComplete: true,
    hideCursor: null,
  });
  const resume = () => {
    if (meter !== undefined) bar.start(1, 0);
  };
  return {
    resume,
    /** Clears the line of the bar. */
    pause: () => bar.stop(),
    /** Draws the progress of a phase until the next call. */
    show(next: PhaseMeter | undefined) {
      bar.stop();
      meter = next;
      resume();
    },
  };
}
