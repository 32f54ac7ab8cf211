/** Progress for eyes: a bar on a terminal, a few lines elsewhere. All of it is talk, so all of it is on stderr. */
import { SingleBar } from "cli-progress";
import type { Event } from "../core/events.ts";
import type { Io, Output } from "./io.ts";
import { bytes, visible } from "./render.ts";

export interface Talk extends Disposable {
  readonly watch: (event: Event) => void;
  /** one line, whole, even where a bar is drawn */
  readonly say: (line: string) => void;
}

export interface TalkOptions {
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly progress: boolean;
}

const isSet = (value: string | undefined): boolean =>
  value !== undefined && value !== "" && value !== "false";

export function talkOn(io: Io, options: TalkOptions): Talk {
  if (options.quiet) return { watch: () => {}, say: () => {}, [Symbol.dispose]: () => {} };
  // With --verbose every tensor has its line; a bar between them would only flicker.
  const barred = options.progress && !options.verbose && io.stderr.isTTY && !isSet(io.env.CI);
  const bar = barred ? barOn(io.stderr) : undefined;
  const say = (line: string) => {
    bar?.pause();
    io.stderr.write(`${line}\n`);
    bar?.resume();
  };
  const watch = (event: Event) => {
    bar?.watch(event);
    const line = bar !== undefined && event.type === "phase" ? undefined : lineOf(event, options.verbose);
    if (line !== undefined) say(line);
  };
  return { watch, say, [Symbol.dispose]: () => bar?.pause() };
}

/** What is worth a line. Warnings are not: the summary, or the end of the run, says them once. */
function lineOf(event: Event, verbose: boolean): string | undefined {
  switch (event.type) {
    case "phase":
      return event.totalBytes === undefined ? event.phase : `${event.phase}: ${bytes(event.totalBytes)}`;
    case "rung":
      return `${event.rung}: ${event.verdict}`;
    case "file":
      return `${visible(event.path)}: ${bytes(event.bytes)}${event.fetched === 0 ? ", there already" : ""}`;
    case "tensor":
      return verbose ? `${visible(event.name)}: ${bytes(event.bytes)}` : undefined;
    case "layer":
      return verbose ? `layer ${event.layer} of ${event.of}: ${event.kind}` : undefined;
    case "retry":
      return `${visible(event.message)}; trying again in ${event.waitSeconds.toFixed(1)} s`;
    case "advance":
    case "warning":
      return undefined;
    default:
      return event satisfies never;
  }
}

/** How far a phase is, in the unit that it counts. */
interface Way {
  readonly unit: "bytes" | "layers";
  readonly done: number;
  readonly total: number;
}

/** One bar, for the phase that runs: by bytes where the phase says how many, else by layers. */
function barOn(stderr: Output) {
  let phase = "";
  let way: Way | undefined;
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
      return way?.unit === "bytes" ? bytes(value) : type === "total" ? `${value} layers` : String(value);
    },
  });
  const resume = () => {
    if (way !== undefined) bar.start(way.total, way.done, { phase });
  };
  const move = (next: Way) => {
    const started = way?.unit === next.unit;
    way = next;
    if (started) bar.update(next.done);
    else resume();
  };
  return {
    resume,
    /** Leaves no trace on the line: what is written next starts there. */
    pause: () => bar.stop(),
    watch(event: Event) {
      if (event.type === "phase") {
        bar.stop();
        phase = event.phase;
        way = undefined;
        if (event.totalBytes !== undefined) move({ unit: "bytes", done: 0, total: event.totalBytes });
      } else if (event.type === "advance" && way?.unit === "bytes") {
        move({ ...way, done: way.done + event.bytes });
      } else if (event.type === "layer" && way?.unit !== "bytes") {
        move({ unit: "layers", done: event.layer, total: event.of });
      }
    },
  };
}
