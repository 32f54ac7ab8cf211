/** What a kernel is: the definition in float64, the fast forms, the bound between them, the cases that admit it. */
import type { FloatDType } from "../src/core/dtype.ts";

/** How a test fills an operand: see `fill` in check.ts. */
export type Fill = "normal" | "codes" | "wide" | "gate" | "ties";

/** One operand of a kernel: a dense array of `length` elements. Activations are F32, weights as stored. */
export interface Operand {
  readonly name: string;
  readonly length: number;
  readonly dtype: FloatDType;
  /** a second filling, under which every case must pass too; the first is always "normal" */
  readonly hard?: Fill;
  /** F32 that says whole numbers of at least 0 and less than this: indices */
  readonly below?: number;
}

/** How a kernel runs in WebAssembly: `fn(...scalars, ...pointers, [scratch], from, to)` computes items [from, to). */
interface WasmForm<P> {
  /** the export of the module */
  readonly fn: string;
  /** numbers passed before the pointers */
  scalars(p: P): readonly number[];
  /** independent work items; splitting them over threads never changes a bit of the result */
  items(p: P): number;
  /** rough multiply-adds of the whole run: what is small is not worth waking other threads for */
  work(p: P): number;
  /** bytes of scratch a thread needs; a kernel without any is passed no pointer to it */
  scratch?(p: P): number;
  /** runs that make up this one, one after the other; the first takes most memory */
  parts?(p: P): readonly P[];
  /** an operand in another form, made before the threads begin and passed to them in its place */
  shared?(p: P): SharedOperand;
}

/**
 * An operand as all threads read it, made by `fn(...scalars, operand, made, from, to)` over items [from, to). Runs that
 * follow use it again as long as they want the same of an operand that is not written meanwhile.
 */
interface SharedOperand {
  readonly fn: string;
  /** index among the inputs */
  readonly operand: number;
  readonly scalars: readonly number[];
  readonly items: number;
  /** as of a kernel */
  readonly work: number;
  readonly bytes: number;
}

/** One dispatch of a shader: what it sees, and the WGSL after the declarations of that. */
export interface Pass {
  /** operands, and arrays handed on between passes, by name: the WGSL type of an element */
  readonly reads: Readonly<Record<string, string>>;
  readonly writes: Readonly<Record<string, string>>;
  /** the uniform `p`, in this order. It may change at every run; a change of `code` costs a new pipeline */
  readonly u32: Readonly<Record<string, number>>;
  readonly f32?: Readonly<Record<string, number>>;
  /** its entry point is `main` */
  readonly code: string;
  readonly workgroups: readonly [number, number, number];
}

/** What a device offers beyond plain WGSL, and shaders have a faster form for. */
export type Extensions = readonly "subgroups"[];

/** How a kernel runs on a GPU. Sums are F32 throughout. */
export interface WgslForm<P> {
  passes(p: P, extensions: Extensions): readonly Pass[];
  /** arrays that passes hand on, by name, in bytes */
  scratch?(p: P): Readonly<Record<string, number>>;
  /** As `Kernel.bound`, where F32 arithmetic or WGSL's looser division and root cost more than the WASM form loses. */
  bound?(p: P, extensions: Extensions): number;
}

/** A kernel without its shaders: what it computes, how it runs in WebAssembly, and the cases that test it. */
export interface KernelDefinition<P> {
  readonly id: string;
  inputs(p: P): readonly Operand[];
  output(p: P): Operand;
  readonly cases: readonly P[];
  /** Largest |kernel - oracle| allowed, relative to the largest |oracle|; derived, with its reason beside it. */
  bound(p: P): number;
  /** float64, by a different algorithm than the fast forms; writes the elements of `output` that the kernel owns */
  oracle(p: P, inputs: readonly Float64Array[], output: Float64Array): void;
  readonly wasm: WasmForm<P>;
  /** benchmark case: parameters of realistic size, and the work of one run (operations, or bytes read and written) */
  readonly benchmark: { readonly p: P; readonly work: number; readonly unit: "GFLOP/s" | "GB/s" };
}

/** `Kernel<unknown>` stands for any kernel: its methods accept every P, as TypeScript lets methods do. */
export interface Kernel<P = unknown> extends KernelDefinition<P> {
  readonly wgsl: WgslForm<P>;
}

/** The largest relative error of one rounding to F32. */
export const ROUNDING = 2 ** -24;

/** The dtypes that kernels decode, in the order that kernels/wasm/decode.ts numbers them. */
export const STORED_DTYPES = [
  "F32",
  "F16",
  "BF16",
  "F8_E4M3",
  "F8_E5M2",
] as const satisfies readonly FloatDType[];

/** Memory of a backend, in bytes. Opaque: only the backend that made it can use it. */
export interface Region {
  readonly bytes: number;
}

/** A device that runs kernels. Numbers never leave it but through `view`, which never gives wrong ones: it throws. */
export interface Backend extends AsyncDisposable {
  readonly id: "wasm" | "webgpu";
  /** as a person would name it: "WASM SIMD, 2 threads" */
  readonly device: string;
  /** those that its shaders take */
  readonly extensions: Extensions;
  /** @throws PLAN_MEMORY when the backend's ceiling, or what it can bind at once, is reached */
  allocate(bytes: number): Region;
  release(region: Region): void;
  /** Lets `fill` write the first `bytes` of the region, then makes them visible to kernels. */
  upload(region: Region, bytes: number, fill: (view: Uint8Array) => Promise<void> | void): Promise<void>;
  /**
   * Runs one kernel; operands in the order of `inputs`, then the output. Calls take effect in their order, uploads and
   * views among them. A GPU resolves once the work is queued: a fault of it shows at the next `view`, at the latest.
   */
  run<P>(kernel: Kernel<P>, p: P, inputs: readonly Region[], output: Region): Promise<void>;
  /** The first `length` F32 elements; valid until the region is written or released. */
  view(region: Region, length: number): Promise<Float32Array>;
}
