/** Progress events. The caller decides how to show them. */

export type Event =
  | {
      readonly type: "phase";
      readonly phase:
        | "plan"
        | "sensitivity"
        | "search"
        | "calibrate"
        | "importance"
        | "measure"
        | "convert"
        | "verify"
        | "bytes"
        | "check"
        | "logits"
        | "sign"
        | "download"
        | "upload";
      readonly totalBytes?: number;
    }
  | {
      readonly type: "advance";
      readonly phase:
        | "sensitivity"
        | "search"
        | "calibrate"
        | "importance"
        | "measure"
        | "convert"
        | "bytes"
        | "check"
        | "logits"
        | "download"
        | "upload";
      readonly bytes: number;
    }
  /** a file of the Hub is complete; `fetched` of its bytes went over the network in this run */
  | { readonly type: "file"; readonly path: string; readonly bytes: number; readonly fetched: number }
  | { readonly type: "tensor"; readonly name: string; readonly bytes: number }
  /** a layer is done; `layer` counts from 0 */
  | { readonly type: "layer"; readonly layer: number; readonly of: number; readonly kind: string }
  | { readonly type: "rung"; readonly rung: string; readonly verdict: string }
  /** a network request failed and is repeated after the pause */
  | { readonly type: "retry"; readonly message: string; readonly waitSeconds: number }
  /** a fact that changes nothing of the result, for --verbose */
  | { readonly type: "note"; readonly message: string }
  /** ids of jobs that the engine of a cluster has accepted */
  | { readonly type: "submitted"; readonly jobs: readonly string[] }
  /** how many tasks of a dispatched conversion are in each state */
  | {
      readonly type: "tasks";
      readonly done: number;
      readonly running: number;
      readonly waiting: number;
      readonly failed: number;
    }
  | { readonly type: "warning"; readonly message: string };

/** A line of the file of `--events`; `time` is ISO 8601 in UTC, with milliseconds. */
export type EventLine = Event & { readonly time: string };

export type Watch = (event: Event) => void;

/** For callers that need no events. */
export const ignoreEvents: Watch = () => {};
