/** The world as the command line sees it: two streams, an environment, signals. Tests bring their own. */
import { IsologitError } from "../core/errors.ts";
import { reportFailure } from "./failure.ts";

export type Output = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
export type StopSignal = "SIGINT" | "SIGTERM";

export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Calls `listener` for each signal that asks to stop, until the returned function is called. */
  onSignal(listener: (signal: StopSignal) => void): () => void;
  /** Ends the process at once, with nothing more said. */
  exit(status: number): void;
}

/** The real world. */
export function processIo(): Io {
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    onSignal(listener) {
      process.on("SIGINT", listener);
      process.on("SIGTERM", listener);
      return () => {
        process.off("SIGINT", listener);
        process.off("SIGTERM", listener);
      };
    },
    exit: (status) => process.exit(status),
  };
}

/**
 * Failures that no `await` sees. A reader that has gone (`| head`) is no fault of ours and stays quiet; anything
 * else ends with 70, since Node's own status for it, 1, would say "a check failed".
 */
export function guardProcess(io: Io): void {
  for (const stream of [io.stdout, io.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") return;
      const failure = new IsologitError(
        "IO_FAILED",
        error.message,
        {},
        { next: "write the output elsewhere" },
      );
      io.exit(reportFailure(failure, io, { json: false, verbose: false }));
    });
  }
  process.on("uncaughtException", (error) =>
    io.exit(reportFailure(error, io, { json: false, verbose: true })),
  );
}
