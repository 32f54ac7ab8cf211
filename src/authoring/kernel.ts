/// <reference types="node" preserve="true" />
/** `isologit/kernel`: what the author of a kernel needs, and the kernels of this version for the stages of a family. */
export * from "../../kernels/index.ts";
export {
  type Backend,
  type Fill,
  type Kernel,
  type Operand,
  type Region,
  ROUNDING,
  type ScriptKernel,
  STORED_DTYPES,
  type WgslForm,
} from "../../kernels/kernel.ts";
export type { FloatDType } from "../core/dtype.ts";
export { IsologitError } from "../core/errors.ts";
export type { Plugin } from "../plugins/plugin.ts";
