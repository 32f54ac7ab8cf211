/** Types of a kernel: its definition in float64, its WASM and WGSL forms, its error bound and its test cases. */
import { DECODED_BLOCKS, type NumericDType } from "../src/core/dtype.ts";

/** How a test fills an operand: see `draw` in check.ts. */
export type Fill = "normal" | "codes" | "wide" | "gate" | "ties" | "shifted";

/** One operand of a kernel: a dense array of `length` elements, whole blocks. Activations are F32, weights as stored. */
export interface Operand {
  readonly name: string;
  readonly length: number;
  readonly dtype: NumericDType;
  /** the fill of a second run of every case; the first run always uses "normal" */
  readonly hard?: Fill;
  /** the operand holds indices: whole numbers from 0 to below this, as F32 */
  readonly below?: number;
}

/** How a kernel runs in WebAssembly: `fn(...scalars, ...pointers, [scratch], from, to)` computes items [from, to). */
interface WasmForm<P> {
  /** the export of the module */
  readonly fn: string;
  /** numbers that are passed before the pointers */
  scalars(p: P): readonly number[];
  /** number of independent work items; every split over threads gives the same bits */
  items(p: P): number;
  /** approximate multiply-adds of the whole run; a small run does not use other threads */
  work(p: P): number;
  /** bytes of scratch for each thread; without this function no scratch pointer is passed */
  scratch?(p: P): number;
  /** splits a run into several, executed in order; the first takes the most memory */
  parts?(p: P): readonly P[];
  /** converts an operand before the threads start; they get the converted operand instead */
  shared?(p: P): SharedOperand;
}

/**
 * An operand that is converted for all threads, by `fn(...scalars, operand, converted, from, to)` over items [from,
 * to). Later runs use the same conversion again, as long as the operand is not written.
 */
interface SharedOperand {
  readonly fn: string;
  /** index among the inputs */
  readonly operand: number;
  readonly scalars: readonly number[];
  readonly items: number;
  /** as in `WasmForm` */
  readonly work: number;
  readonly bytes: number;
}

/** One dispatch of a shader: its arrays and uniforms, and the WGSL that follows their declarations. */
export interface Pass {
  /** operands and arrays of other passes, by name, with the WGSL type of an element */
  readonly reads: Readonly<Record<string, string>>;
  readonly writes: Readonly<Record<string, string>>;
  /** the fields of the uniform `p`, in this order; their values need no new pipeline, a change of `code` does */
  readonly u32: Readonly<Record<string, number>>;
  readonly f32?: Readonly<Record<string, number>>;
  /** WGSL with the entry point `main` */
  readonly code: string;
  readonly workgroups: readonly [number, number, number];
}

/** WGSL extensions of a device for which shaders have a faster form. */
export type Extensions = readonly "subgroups"[];

/** How a kernel runs on a GPU. All sums are F32. */
export interface WgslForm<P> {
  passes(p: P, extensions: Extensions): readonly Pass[];
  /** bytes of the arrays that one pass writes and another reads, by name */
  scratch?(p: P): Readonly<Record<string, number>>;
  /** As `Kernel.bound`, if the WGSL form is less accurate: F32 sums, and WGSL's rules for division and square root. */
  bound?(p: P, extensions: Extensions): number;
}

/** A kernel without its shaders: what it computes, how it runs in WebAssembly, and the cases that test it. */
export interface KernelDefinition<P> {
  readonly id: string;
  inputs(p: P): readonly Operand[];
  output(p: P): Operand;
  readonly cases: readonly P[];
  /** Largest |kernel - oracle| allowed, relative to the largest |oracle|; derived in a comment beside it. */
  bound(p: P): number;
  /** the definition in float64, by another algorithm than the fast forms; writes the elements that the kernel writes */
  oracle(p: P, inputs: readonly Float64Array[], output: Float64Array): void;
  readonly wasm: WasmForm<P>;
  /** benchmark case: parameters of realistic size, and the work of one run (operations, or bytes read and written) */
  readonly benchmark: { readonly p: P; readonly work: number; readonly unit: "GFLOP/s" | "GB/s" };
}

/** `Kernel<unknown>` stands for any kernel: its methods accept every P, as TypeScript lets methods do. */
export interface Kernel<P = unknown> extends KernelDefinition<P> {
  readonly wgsl: WgslForm<P>;
}

/**
 * A kernel of a plug-in. The compiled module has only the functions of this version, so the kernel runs in JavaScript, on the
 * calling thread. Its results must not depend on the machine if certificates are to be checked elsewhere.
 */
export interface ScriptKernel<P = unknown> extends Omit<KernelDefinition<P>, "wasm"> {
  /** Computes the output. Operands are F32; stored ones are widened. `output` may be one of `inputs`. */
  compute(p: P, inputs: readonly Float32Array[], output: Float32Array): void;
  /** absent: no GPU can run it */
  readonly wgsl?: WgslForm<P>;
}

/** The largest relative error of one rounding to F32. */
export const ROUNDING = 2 ** -24;

/** The dtypes that kernels decode; kernels/wasm/decode.ts uses their positions in this list. */
export const STORED_DTYPES = [
  "F32",
  "F16",
  "BF16",
  "F8_E4M3",
  "F8_E5M2",
  ...DECODED_BLOCKS,
] as const satisfies readonly NumericDType[];

/** Memory of a backend. Only the backend that allocated it can use it. */
export interface Region {
  readonly bytes: number;
}

/** A device that runs kernels. Only `view` returns numbers; after a fault of the device it throws. */
export interface Backend extends AsyncDisposable {
  readonly id: "wasm" | "webgpu";
  /** name for reports: "WASM SIMD, 2 threads" */
  readonly device: string;
  /** WGSL extensions that its shaders use */
  readonly extensions: Extensions;
  /** the memory of all regions, which other threads can share: an array of `view` lies in it; absent on a GPU */
  readonly memory?: WebAssembly.Memory;
  /** @throws PLAN_MEMORY above the memory limit of the backend, or above the largest buffer of the device */
  allocate(bytes: number): Region;
  release(region: Region): void;
  /** Lets `fill` write the first `bytes` of the region, then makes them visible to kernels. */
  upload(region: Region, bytes: number, fill: (view: Uint8Array) => Promise<void> | void): Promise<void>;
  /**
   * Runs one kernel, with operands in the order of `inputs`. All calls, uploads and views included, take effect in the
   * order of the calls. On a GPU the promise resolves when the work is queued; a fault is reported at the next `view`
   * or before.
   *
   * @throws NOT_AVAILABLE for a kernel without a form for this backend
   */
  run<P>(kernel: Kernel<P> | ScriptKernel<P>, p: P, inputs: readonly Region[], output: Region): Promise<void>;
  /** The first `length` F32 elements; valid until the region is written or released. */
  view(region: Region, length: number): Promise<Float32Array>;
}
