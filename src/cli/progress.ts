/** Progress on stderr: a bar on a terminal, a few lines elsewhere. */
import { SingleBar } from "cli-progress";
import type { Event } from "../core/events.ts";
import { escapeControls, formatBytes } from "../core/figures.ts";
import type { Io, Output } from "./io.ts";

interface ProgressOutput extends Disposable {
  readonly watch: (event: Event) => void;
  /** prints one line; the bar, if there is one, is redrawn below it */
  readonly printLine: (line: string) => void;
}

interface ProgressOptions {
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly progress: boolean;
}

const isSet = (value: string | undefined): boolean =>
  value !== undefined && value !== "" && value !== "false";

export function openProgress(io: Io, options: ProgressOptions): ProgressOutput {
  if (options.quiet) return { watch: () => {}, printLine: () => {}, [Symbol.dispose]: () => {} };
  // With --verbose every tensor has a line, and a bar between the lines would flicker.
  const hasBar = options.progress && !options.verbose && io.stderr.isTTY && !isSet(io.env.CI);
  const bar = hasBar ? barOn(io.stderr) : undefined;
  const printLine = (line: string) => {
    bar?.pause();
    io.stderr.write(`${line}\n`);
    bar?.resume();
  };
  const watch = (event: Event) => {
    bar?.watch(event);
    const line = bar !== undefined && event.type === "phase" ? undefined : lineOf(event, options.verbose);
    if (line !== undefined) printLine(line);
  };
  return { watch, printLine, [Symbol.dispose]: () => bar?.pause() };
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
      return verbose ? `layer ${event.layer} of ${event.of}: ${event.kind}` : undefined;
    case "retry":
      return `${escapeControls(event.message)}; trying again in ${event.waitSeconds.toFixed(1)} s`;
    case "advance":
    case "warning":
      return undefined;
    default:
      return event satisfies never;
  }
}

/** How far a phase has come, in the unit that it counts. */
interface Count {
  readonly unit: "bytes" | "layers";
  readonly done: number;
  readonly total: number;
}

/** A bar for the current phase: it counts bytes if the phase states their number, else layers. */
function barOn(stderr: Output) {
  let phase = "";
  let progress: Count | undefined;
  const bar = new SingleBar({
    stream: stderr,
    format: "{phase} {bar} {percentage} %  {value} of {total}  {eta_formatted} left",
    barsize: 30,
    barCompleteChar: "━",
    barIncompleteChar: "─",
    clearOnComplete: true,
    hideCursor: null,
    formatValue(value, _, type) {
      if (type === "percentage") return String(value).padStart(3);
      return progress?.unit === "bytes"
        ? formatBytes(value)
        : type === "total"
          ? `${value} layers`
          : String(value);
    },
  });
  const resume = () => {
    if (progress !== undefined) bar.start(progress.total, progress.done, { phase });
  };
  const move = (next: Count) => {
    const started = progress?.unit === next.unit;
    progress = next;
    if (started) bar.update(next.done);
    else resume();
  };
  return {
    resume,
    /** Clears the line of the bar. */
    pause: () => bar.stop(),
    watch(event: Event) {
      if (event.type === "phase") {
        bar.stop();
        phase = event.phase;
        progress = undefined;
        if (event.totalBytes !== undefined) move({ unit: "bytes", done: 0, total: event.totalBytes });
      } else if (event.type === "advance" && progress?.unit === "bytes") {
        move({ ...progress, done: progress.done + event.bytes });
      } else if (event.type === "layer" && progress?.unit !== "bytes") {
        move({ unit: "layers", done: event.layer, total: event.of });
      }
    },
  };
}
