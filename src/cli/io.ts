/** The process as the command line uses it: two streams, the environment, signals. Tests pass their own. */

export type Output = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
export type StopSignal = "SIGINT" | "SIGTERM";

export interface Io {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Calls `listener` for each stop signal, until the returned function is called. */
  onSignal(listener: (signal: StopSignal) => void): () => void;
  /** Ends the process at once, without further output. */
  exit(status: number): void;
}

/** Streams, environment and signals of this process. */
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
