/** Stages that the forward passes of several families share. */
import type * as Kernels from "../../../kernels/index.ts";
import type { Backend, Kernel, Region } from "../../../kernels/kernel.ts";
import type { KernelStage, Stage } from "../forward.ts";
import type { Dims } from "../structure.ts";

/** Dims of every family with one width of the residual stream and one epsilon. */
export interface StreamDims extends Dims {
  readonly hidden: number;
  /** eps of the norms */
  readonly eps: number;
}

type KernelName = Exclude<keyof typeof Kernels, "kernels">;

/** The parameters of a kernel. */
type ParametersOf<N extends KernelName> = (typeof Kernels)[N] extends Kernel<infer P> ? P : never;

/** kept, because an import of a loaded module takes longer than a small kernel */
let loading: Promise<typeof Kernels> | undefined;

/** Kernels and shaders are loaded when the first stage runs: most commands ask only what the model consists of. */
export async function runKernel<N extends KernelName>(
  name: N,
  backend: Backend,
  p: ParametersOf<N>,
  inputs: readonly Region[],
  output: Region,
): Promise<void> {
  loading ??= import("../../../kernels/index.ts");
  const kernel = (await loading)[name] as unknown as Kernel<ParametersOf<N>>; // the kernel of this name
  await backend.run(kernel, p, inputs, output);
}

export function kernelStage<N extends KernelName, D extends Dims>(
  kernel: N,
  to: string,
  from: readonly string[],
  parameters: readonly string[],
  p: (d: D, rows: number) => ParametersOf<N>,
): KernelStage<D> {
  return {
    op: "kernel",
    from,
    parameters,
    to,
    run: (backend, d, rows, inputs, output) => runKernel(kernel, backend, p(d, rows), inputs, output),
  };
}

/** A kernel stage that also reads earlier rows of the streams `history.of`: the last `most` of them, or all. */
export function stageWithHistory<N extends KernelName, D extends Dims>(
  kernel: N,
  to: string,
  from: readonly string[],
  parameters: readonly string[],
  history: { readonly of: readonly string[]; readonly most?: (d: D) => number },
  p: (d: D, rows: number, past: number) => ParametersOf<N>,
): KernelStage<D> {
  return {
    ...kernelStage<N, D>(kernel, to, from, parameters, (d, rows) => p(d, rows, 0)),
    carry: {
      keeps: "rows",
      ...history,
      run: (backend, d, rows, past, inputs, output) =>
        runKernel(kernel, backend, p(d, rows, past), inputs, output),
    },
  };
}

export const linear = <D extends Dims>(from: string, ...to: readonly string[]): Stage<D> => ({
  op: "linear",
  from,
  to,
});

/** Adds a row, the bias, to each row of a product. */
export const addBias = <D extends Dims>(to: string, width: (d: D) => number): Stage<D> =>
  kernelStage("addRow", to, [`${to}.product`], [`${to}.bias`], (d: D, tokens) => ({
    tokens,
    width: width(d),
  }));

/** A product, with its bias if the model has one. */
export const productWithBias = <D extends Dims>(
  hasBias: boolean,
  from: string,
  to: string,
  width: (d: D) => number,
): readonly Stage<D>[] =>
  hasBias ? [linear(from, `${to}.product`), addBias(to, width)] : [linear(from, to)];

/** The stream of a product, before its bias if the model has one. */
export const productOf = (to: string, hasBias: number): string => (hasBias === 1 ? `${to}.product` : to);

/** RMS norm over the width of the residual stream. */
export const norm = <D extends StreamDims>(to: string, gain: string, from = "residual"): Stage<D> => ({
  ...kernelStage("rmsNorm", to, [from], [gain], (d: D, tokens) => ({ tokens, width: d.hidden, eps: d.eps })),
  needs: { [gain]: [from] },
});

/** A stream times a number: a multiplier of the model. */
export const multiplier = <D extends Dims>(
  to: string,
  from: string,
  width: (d: D) => number,
  factor: (d: D) => number,
): Stage<D> => ({
  ...kernelStage("scale", to, [from], [], (d: D, rows) => ({ count: rows * width(d), factor: factor(d) })),
  silent: ([values]) => isZero(values!),
});

export const squaredRelu = <D extends Dims>(to: string, from: string, width: (d: D) => number): Stage<D> => ({
  ...kernelStage("relu2", to, [from], [], (d: D, rows) => ({ count: rows * width(d) })),
  // the square of a small number may be too small for F32
  silent: ([values]) => values!.every((value) => value <= 0 || Math.fround(value * value) === 0),
});

/** Elements in one row of the streams of every family. */
export const commonStreams = (d: StreamDims): Readonly<Record<string, number>> => ({
  ...{ residual: d.hidden, u: d.hidden, "out.product": d.hidden, out: d.hidden, logits: d.vocab },
});

export const isZero = (values: Float32Array): boolean => values.every((value) => value === 0);
