/** Progress for eyes: a bar on a terminal, a few lines elsewhere. All of it is talk, so all of it is on stderr. */
import { SingleBar } from "cli-progress";
import type { Event } from "../core/events.ts";
import type { Io } from "./io.ts";
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
  const bar = options.progress && io.stderr.isTTY && !isSet(io.env.CI) ? barOn(io) : undefined;
  const say = (line: string) => {
    bar?.clear();
    io.stderr.write(`${line}\n`);
  };
  const watch = (event: Event) => {
    bar?.watch(event);
    const line = lineOf(event, options.verbose);
    if (line !== undefined) say(line);
  };
  return { watch, say, [Symbol.dispose]: () => bar?.stop() };
}

/** What is worth a line. Warnings are not: the summary, or the end of the run, says them once. */
function lineOf(event: Event, verbose: boolean): string | undefined {
  switch (event.type) {
    case "phase":
      return event.totalBytes === undefined ? event.phase : `${event.phase}: ${bytes(event.totalBytes)}`;
    case "rung":
      return `${event.rung}: ${event.verdict}`;
    case "tensor":
      return verbose ? `${visible(event.name)}: ${bytes(event.bytes)}` : undefined;
    case "layer":
      return verbose ? `layer ${event.layer} of ${event.of}: ${event.kind}` : undefined;
    case "advance":
    case "warning":
      return undefined;
    default:
      return event satisfies never;
  }
}

/** One bar at a time: bytes where the phase counts them, else layers. */
function barOn(io: Io) {
  const bar = new SingleBar({
    stream: io.stderr,
    format: "{phase} {bar} {percentage} %  {value} of {total}  {eta_formatted} left",
    barsize: 30,
    barCompleteChar: "━",
    barIncompleteChar: "─",
    clearOnComplete: true,
    hideCursor: null,
    // Our own signal handler ends the run; the bar must not.
    gracefulExit: false,
    formatValue: (value, _, type) =>
      type === "percentage" ? String(value).padStart(3) : inBytes ? bytes(value) : `layer ${value}`,
  });
  let inBytes = true;
  const start = (total: number, phase: string) => {
    bar.stop();
    bar.start(total, 0, { phase });
  };
  let phase = "";
  return {
    watch(event: Event) {
      switch (event.type) {
        case "phase":
          phase = event.phase;
          inBytes = true;
          if (event.totalBytes === undefined) bar.stop();
          else start(event.totalBytes, phase);
          break;
        case "advance":
          if (bar.isActive && inBytes) bar.increment(event.bytes);
          break;
        case "layer":
          if (bar.isActive && inBytes) break;
          if (!bar.isActive) {
            inBytes = false;
            start(event.of, phase);
          }
          bar.update(event.layer);
          break;
        default:
          break;
      }
    },
    /** Wipes the bar's line; it is drawn again with the next step. */
    clear: () => {
      if (bar.isActive) io.stderr.write("\r\u001b[K");
    },
    stop: () => bar.stop(),
  };
}
