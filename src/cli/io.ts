/** The process as the command line uses it: two streams, the environment, signals. Tests pass their own. */

export type Output = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
/** A closed terminal, or a lost connection to it, sends SIGHUP. */
const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
export type StopSignal = (typeof STOP_SIGNALS)[number];

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
      for (const signal of STOP_SIGNALS) process.on(signal, listener);
      return () => {
        for (const signal of STOP_SIGNALS) process.off(signal, listener);
      };
    },
    exit: (status) => process.exit(status),
  };
}
