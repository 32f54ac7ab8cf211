/** What one run of a command has around it: someone who watches, a way to stop, the warnings so far. */
import { closeSync, openSync, writeSync } from "node:fs";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import type { Io } from "./io.ts";
import type { Library } from "./library.ts";
import type { Flags } from "./options.ts";
import { talkOn } from "./progress.ts";

export interface Session {
  readonly library: Library;
  readonly env: Io["env"];
  readonly watch: Watch;
  /** a piece of the result, before the rest of it is there */
  readonly write: (text: string) => void;
  /** one line of talk */
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  /** in the order they came, each once */
  readonly warnings: ReadonlySet<string>;
}

/** @throws NOT_FOUND, IO_FAILED when the events file cannot be opened */
export function openSession(io: Io, library: Library, flags: Flags): Session & Disposable {
  const events = eventsTo(flags.events); // first: it alone may throw, and then nothing else is open
  const talk = talkOn(io, {
    quiet: flags.quiet ?? false,
    verbose: flags.verbose ?? false,
    progress: flags.progress ?? true,
  });
  const stop = stopOnSignal(io, talk.say);
  const warnings = new Set<string>();
  return {
    library,
    env: io.env,
    signal: stop.signal,
    write: (text) => void io.stdout.write(text),
    say: talk.say,
    warnings,
    watch(event) {
      events.write(`${JSON.stringify(event)}\n`);
      if (event.type === "warning") warnings.add(event.message);
      talk.watch(event);
    },
    [Symbol.dispose]() {
      stop.end();
      talk[Symbol.dispose]();
      events.close();
    },
  };
}

/** Written at once and in order, so that whoever follows the file sees the last event before a crash. */
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

/** The first signal asks the library to stop at a safe point; the second ends the process. */
function stopOnSignal(io: Io, say: (line: string) => void) {
  const controller = new AbortController();
  const end = io.onSignal((signal) => {
    const interrupted = new IsologitError("INTERRUPTED", `stopped by ${signal}`);
    if (controller.signal.aborted) return io.exit(interrupted.exit);
    say(`${signal}: stopping at the next safe point; once more ends at once`);
    controller.abort(interrupted);
  });
  return { signal: controller.signal, end };
}
