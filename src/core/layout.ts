/** placeholder: replaced by the algebra */
import type { Shape } from "./dtype.ts";

export type Layout =
  | { readonly op: "leaf"; readonly of: string; readonly shape: Shape }
  | {
      readonly op: "slice";
      readonly of: Layout;
      readonly axis: number;
      readonly from: number;
      readonly to: number;
    }
  | { readonly op: "concat"; readonly axis: number; readonly parts: readonly Layout[] }
  | { readonly op: "pad"; readonly of: Layout; readonly rows: number }
  | { readonly op: "reshape"; readonly of: Layout; readonly shape: Shape }
  | { readonly op: "transpose"; readonly of: Layout; readonly axes: readonly number[] }
  | {
      readonly op: "map";
      readonly of: Layout;
      readonly fn: "minusExp" | "logMinus" | "plusOne" | "minusOne";
    };
