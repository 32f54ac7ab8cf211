/** Progress as data: whoever watches decides how it looks. */

export type Event =
  | {
      readonly type: "phase";
      readonly phase: "plan" | "convert" | "verify" | "check" | "logits" | "sign" | "download" | "upload";
      readonly totalBytes?: number;
    }
  | {
      readonly type: "advance";
      readonly phase: "convert" | "verify" | "check" | "logits" | "download" | "upload";
      readonly bytes: number;
    }
  /** a file of the Hub is whole; `fetched` bytes of it came, or went, over the network now */
  | { readonly type: "file"; readonly path: string; readonly bytes: number; readonly fetched: number }
  | { readonly type: "tensor"; readonly name: string; readonly bytes: number }
  | { readonly type: "layer"; readonly layer: number; readonly of: number; readonly kind: string }
  | { readonly type: "rung"; readonly rung: string; readonly verdict: string }
  /** the network failed; it is tried again after the pause */
  | { readonly type: "retry"; readonly message: string; readonly waitSeconds: number }
  | { readonly type: "warning"; readonly message: string };

export type Watch = (event: Event) => void;

/** Where nobody watches. */
export const ignoreEvents: Watch = () => {};
