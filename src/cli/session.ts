/** The surroundings of one run of a command: progress output, events file, stop signal, warnings. */
import { closeSync, openSync, writeSync } from "node:fs";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Event, EventLine, Watch } from "../core/events.ts";
import type { RunTimes } from "../report/subject.ts";
import { nameFlags } from "./flag-names.ts";
import type { Io } from "./io.ts";
import type { Library } from "./library.ts";
import type { Flags } from "./options.ts";
import { openProgress } from "./progress/progress.ts";
import type { PhaseTime } from "./render.ts";

export interface Session {
  readonly library: Library;
  readonly env: Io["env"];
  readonly watch: Watch;
  /** prints a part of the result while the command runs */
  readonly printResult: (text: string) => void;
  /** prints one line on stderr */
  readonly printLine: (line: string) => void;
  readonly signal: AbortSignal;
  /** the phases of the run so far */
  readonly phases: () => readonly PhaseTime[];
  /** how long the run took so far */
  readonly times: () => RunTimes;
  /** in the order of their events, each once */
  readonly warnings: ReadonlySet<string>;
}

/** @throws NOT_FOUND, IO_FAILED when the events file cannot be opened */
export async function openSession(io: Io, library: Library, flags: Flags): Promise<Session & Disposable> {
  const events = eventsTo(flags.events); // first, because only this call may throw, and nothing else is open yet
  const progress = await openProgress(io, {
    quiet: flags.quiet ?? false,
    verbose: flags.verbose ?? false,
    progress: flags.progress ?? true,
  });
  const stop = stopOnSignal(io, progress.printLine);
  const warnings = new Set<string>();
  const clock = runClock();
  return {
    library,
    env: io.env,
    signal: stop.signal,
    printResult: (text) => void io.stdout.write(text),
    printLine: progress.printLine,
    phases: progress.phases,
    times: clock.times,
    warnings,
    watch(happened) {
      const event = nameFlagsInEvent(happened);
      const line: EventLine = { time: new Date().toISOString(), ...event };
      events.write(`${JSON.stringify(line)}\n`);
      if (event.type === "warning") warnings.add(event.message);
      clock.watch(event);
      progress.watch(event);
    },
    [Symbol.dispose]() {
      stop.end();
      progress[Symbol.dispose]();
      events.close();
    },
  };
}

/** Measures the run and its rungs, which follow one another and begin with the phase `verify`. */
function runClock() {
  const now = () => performance.now() / 1000;
  const rungs: Record<string, number> = {};
  const start = now();
  let mark = start;
  return {
    watch(event: Event) {
      if (event.type === "rung") rungs[event.rung] = now() - mark;
      if (event.type === "rung" || (event.type === "phase" && event.phase === "verify")) mark = now();
    },
    times: (): RunTimes => ({ whole: now() - start, rungs: { ...rungs } }),
  };
}

/** A warning with flags in place of the library's options; other events are unchanged. */
const nameFlagsInEvent = (event: Event): Event =>
  event.type === "warning" ? { ...event, message: nameFlags(event.message) } : event;

/** Writes each event at once, so that the file holds the last event before a crash. */
function eventsTo(file: string | undefined) {
  if (file === undefined) return { write: () => {}, close: () => {} };
  const located = <T>(act: () => T): T => {
    try {
      return act();
    } catch (error) {
      throw systemError(error, { file });
    }
  };
  const descriptor = located(() => openSync(file, "w"));
  return {
    write: (line: string) => void located(() => writeSync(descriptor, line)),
    close: () => closeSync(descriptor),
  };
}

/** The first signal stops the library at a safe point; the second signal ends the process. */
function stopOnSignal(io: Io, say: (line: string) => void) {
  const controller = new AbortController();
  const end = io.onSignal((signal) => {
    const interrupted = new IsologitError("INTERRUPTED", `stopped by ${signal}`);
    if (controller.signal.aborted) return io.exit(interrupted.exit);
    say(`${signal}: stopping at the next safe point; a second signal ends at once`);
    controller.abort(interrupted);
  });
  return { signal: controller.signal, end };
}
