/** The bounds are tight enough to see each classic mistake: a kernel held to a wrong oracle must fail. */
import { afterAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { checkKernels } from "../../kernels/check.ts";
import {
  add,
  addRow,
  attention,
  conv1d,
  copy,
  gatedNorm,
  layerNorm,
  linear,
  mix,
  relu2,
  rmsNorm,
  rope,
  routerChoose,
  routerScore,
  routerSoftmax,
  routerWeigh,
  scale,
  ssd,
  ssdStep,
  swiglu,
  widen,
} from "../../kernels/index.ts";
import type { Kernel } from "../../kernels/kernel.ts";
import { blockElements } from "../../src/core/dtype.ts";
import { decode, encode } from "../../src/core/float.ts";

const backend = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
afterAll(() => backend[Symbol.asyncDispose]());

type Inputs = readonly Float64Array[];

/** The kernel with an oracle that gets other parameters, other inputs, or both. */
function believing<P>(kernel: Kernel<P>, params: (p: P) => P, inputs: (x: Inputs, p: P) => Inputs): Kernel {
  return { ...kernel, oracle: (p: P, x, out) => kernel.oracle(params(p), inputs(x, p), out) } as Kernel;
}
const withParams = <P>(kernel: Kernel<P>, params: (p: P) => P) => believing(kernel, params, (x) => x);
const withInputs = <P>(kernel: Kernel<P>, inputs: (x: Inputs, p: P) => Inputs) =>
  believing(kernel, (p) => p, inputs);

/** The kernel whose WebAssembly form is passed other parameters. */
function running<P>(kernel: Kernel<P>, params: (p: P) => P): Kernel {
  const { wasm } = kernel;
  const scalars = (p: P) => wasm.scalars(params(p));
  const shared = wasm.shared && { shared: (p: P) => wasm.shared!(params(p)) };
  return { ...kernel, wasm: { ...wasm, scalars, ...shared } } as Kernel;
}

/** Inputs with the i-th replaced. */
const replaced = (x: Inputs, i: number, by: (old: Float64Array) => Float64Array): Inputs =>
  x.with(i, by(x[i]!));
const swapped = (x: Inputs, i: number, j: number): Inputs => x.with(i, x[j]!).with(j, x[i]!);
const zeros = (old: Float64Array) => old.map(() => 0);

/** The columns of `blocks` equal blocks of each row, in the order that `from` gives them. */
function permuted(
  x: Float64Array,
  rows: number,
  blocks: number,
  from: (block: number) => number,
): Float64Array {
  const width = x.length / rows / blocks;
  return x.map((_, i) => {
    const row = Math.floor(i / width / blocks);
    const block = Math.floor(i / width) % blocks;
    return x[(row * blocks + from(block)) * width + (i % width)]!;
  });
}

/** An oracle in which block k of `out` reads group k mod groups: the blocks' operands and results are dealt anew. */
function moduloGroups<P extends { tokens: number; heads: number }>(
  kernel: Kernel<P>,
  groups: (p: P) => number,
  perToken: readonly number[],
  perHead: readonly number[],
): Kernel {
  const oracle = (p: P, x: Inputs, out: Float64Array) => {
    const run = p.heads / groups(p);
    const deal = (k: number) => (k % run) * groups(p) + Math.floor(k / run); // heads of one group, side by side
    const back = (k: number) => (k % groups(p)) * run + Math.floor(k / groups(p));
    const dealt = x.map((operand, i) => {
      if (perToken.includes(i)) return permuted(operand, p.tokens, p.heads, deal);
      return perHead.includes(i) ? permuted(operand, 1, p.heads, deal) : operand;
    });
    const result = new Float64Array(out.length);
    kernel.oracle(p, dealt, result);
    out.set(permuted(result, p.tokens, p.heads, back));
  };
  return { ...kernel, oracle } as Kernel;
}

const reversedTime = (x: Float64Array, tokens: number) => permuted(x, 1, tokens, (t) => tokens - 1 - t);

const mutants: Readonly<Record<string, Kernel>> = {
  "add: b twice": withInputs(add, (x) => x.with(0, x[1]!)),
  "add-row: no bias": withInputs(addRow, (x) => replaced(x, 1, zeros)),
  "add-row: the bias of the neighbour": withInputs(addRow, (x) => replaced(x, 1, (b) => b.slice().reverse())),
  "scale: factor of BF16": withParams(scale, (p) => ({
    ...p,
    factor: decode("BF16", encode("BF16", p.factor)),
  })),
  "scale: divides": withParams(scale, (p) => ({ ...p, factor: 1 / p.factor })),
  "swiglu: up gates": withInputs(swiglu, (x) => swapped(x, 0, 1)),
  "swiglu: no up": withInputs(swiglu, (x) => replaced(x, 1, (up) => up.map(() => 1))),
  "swiglu: sigmoid for silu": withInputs(swiglu, (x) =>
    replaced(x, 1, (up) => up.map((v, i) => v / x[0]![i]!)),
  ),
  "relu2: no relu": withInputs(relu2, (x) => replaced(x, 0, (x) => x.map(Math.abs))),
  "relu2: no square": withInputs(relu2, (x) =>
    replaced(x, 0, (x) => x.map((v) => Math.sqrt(Math.max(v, 0)))),
  ),
  "widen: no scale": withParams(widen, (p) => ({ ...p, scale: 1 })),
  "widen: FP8 kinds confused": running(widen, (p) => ({
    ...p,
    dtype: p.dtype === "F8_E4M3" ? "F8_E5M2" : p.dtype,
  })),
  "widen: BF16 read as F16": running(widen, (p) => ({ ...p, dtype: p.dtype === "BF16" ? "F16" : p.dtype })),
  "widen: Q4_0 read as IQ4_NL": running(widen, (p) => ({
    ...p,
    dtype: p.dtype === "Q4_0" ? "IQ4_NL" : p.dtype,
  })),
  "linear: Q4_0 read as IQ4_NL": running(linear, (p) => ({
    ...p,
    dtype: p.dtype === "Q4_0" ? "IQ4_NL" : p.dtype,
  })),
  "linear: halves of the runs of Q8_0 exchanged": withInputs(linear, (x, p) =>
    replaced(x, 0, (w) => (p.dtype === "Q8_0" ? permuted(w, w.length / 32, 2, (half) => 1 - half) : w)),
  ),
  "widen: E4M3 subnormals are zero": withInputs(widen, (x, p) =>
    replaced(x, 0, (x) => x.map((v) => (p.dtype === "F8_E4M3" && Math.abs(v) < 2 ** -6 ? 0 : v))),
  ),
  "rms-norm: gain is 1 + w": withInputs(rmsNorm, (x) => replaced(x, 1, (gain) => gain.map((w) => 1 + w))),
  "rms-norm: no eps": withParams(rmsNorm, (p) => ({ ...p, eps: 0 })),
  "rms-norm: another eps": withParams(rmsNorm, (p) => ({ ...p, eps: 1.2 * p.eps })),
  "gated-norm: one group": withParams(gatedNorm, (p) => ({ ...p, groups: 1 })),
  "gated-norm: y gates z": withInputs(gatedNorm, (x) => swapped(x, 0, 1)),
  "gated-norm: no eps": withParams(gatedNorm, (p) => ({ ...p, eps: 0 })),
  "gated-norm: norm before gate": withParams(gatedNorm, (p) => ({ ...p, normFirst: true })),
  "gated-norm: gate before norm": withParams(gatedNorm, (p) => ({ ...p, normFirst: false })),
  "layer-norm: gain as stored": withParams(layerNorm, (p) => ({ ...p, zeroCentered: false })),
  "layer-norm: gain is 1 + w": withParams(layerNorm, (p) => ({ ...p, zeroCentered: true })),
  "layer-norm: no bias": withInputs(layerNorm, (x) => replaced(x, 2, zeros)),
  "layer-norm: another eps": withParams(layerNorm, (p) => ({ ...p, eps: 1.2 * p.eps })),
  "layer-norm: the variance divides by width - 1": believing(
    { ...layerNorm, cases: layerNorm.cases.filter(({ width }) => width > 1) },
    (p) => ({ ...p, zeroCentered: false, eps: p.eps * (1 - 1 / p.width) }),
    (x, p) =>
      replaced(x, 1, (gain) => gain.map((w) => (w + Number(p.zeroCentered)) * Math.sqrt(1 - 1 / p.width))),
  ),
  "layer-norm: the variance is the mean square, rounded, minus that of the mean": {
    ...layerNorm,
    cases: layerNorm.cases.filter(({ width }) => width > 1),
    oracle({ width, eps, zeroCentered }: (typeof layerNorm.cases)[number], [x, gain, bias]: Inputs, out) {
      const meanOf = (row: Float64Array) => row.reduce((sum, v) => sum + v, 0) / width;
      for (let first = 0; first < out.length; first += width) {
        const row = x!.subarray(first, first + width);
        const mean = meanOf(row);
        const variance = Math.fround(meanOf(row.map((v) => v * v))) - Math.fround(mean * mean);
        row.forEach((v, i) => {
          out[first + i] =
            ((v - mean) / Math.sqrt(variance + eps)) * (gain![i]! + Number(zeroCentered)) + bias![i]!;
        });
      }
    },
  } as Kernel,
  "conv1d: taps reversed": withInputs(conv1d, (x, p) =>
    replaced(x, 1, (taps) => permuted(taps, p.width, p.kernel, (j) => p.kernel - 1 - j)),
  ),
  "conv1d: no bias": withInputs(conv1d, (x) => replaced(x, 2, zeros)),
  "conv1d: the rows before are zeros": withInputs(conv1d, (x, p) =>
    replaced(x, 0, (x) => x.map((v, i) => (i < p.past * p.width ? 0 : v))),
  ),
  "conv1d: begins at the first row": running(conv1d, (p) => ({ ...p, past: 0 })),
  "copy: from the start": running(copy, (p) => ({ ...p, from: 0 })),
  "copy: to the start": running(copy, (p) => ({ ...p, at: 0 })),
  "conv1d: sees the future": {
    ...conv1d,
    cases: conv1d.cases.filter(({ past }) => past === 0),
    oracle(p: (typeof conv1d.cases)[number], x: Inputs, out) {
      const taps = permuted(x[1]!, p.width, p.kernel, (j) => p.kernel - 1 - j);
      const result = new Float64Array(out.length);
      conv1d.oracle(p, [reversedTime(x[0]!, p.tokens), taps, x[2]!], result);
      out.set(reversedTime(result, p.tokens));
    },
  } as Kernel,
  "linear: no scale": withParams(linear, (p) => ({ ...p, scale: 1 })),
  "linear: bands start at row 0": running(linear, (p) => ({ ...p, firstRow: 0 })),
  "linear: columns start at 0": running(linear, (p) => ({ ...p, inFrom: 0 })),
  "linear: writes over its neighbours": running(linear, (p) => ({ ...p, outFrom: 0 })),
  "linear: one column or block short": running(linear, (p) => {
    const unit = blockElements(p.dtype);
    return { ...p, cols: p.cols > unit ? p.cols - unit : p.cols };
  }),
  "linear: F32 weights rounded to BF16": withInputs(linear, (x, p) =>
    replaced(x, 0, (w) => (p.dtype === "F32" ? w.map((v) => decode("BF16", encode("BF16", v))) : w)),
  ),
  "mix: no weights": withInputs(mix, (x) => replaced(x, 2, (w) => w.map(() => 1))),
  "mix: a row too far": withInputs(mix, (x, p) => replaced(x, 1, (s) => s.map((v) => (v + 1) % p.sources))),
  "mix: the first term only": withInputs(mix, (x, p) =>
    replaced(x, 2, (w) => w.map((v, i) => (i % p.terms === 0 ? v : 0))),
  ),
  "rope: the other pairs": withParams(rope, (p) => ({ ...p, interleaved: !p.interleaved })),
  "rope: turns the other way": withInputs(rope, (x, p) =>
    replaced(x, 1, (table) => table.map((v, i) => (i % p.rotary < p.rotary / 2 ? v : -v))),
  ),
  "rope: cosines and sines exchanged": withInputs(rope, (x, p) =>
    replaced(x, 1, (table) => permuted(table, p.tokens, 2, (half) => 1 - half)),
  ),
  "rope: the positions reversed": withInputs(rope, (x, p) =>
    replaced(x, 1, (table) => reversedTime(table, p.tokens)),
  ),
  "rope: the table of one token for all": withInputs(rope, (x, p) =>
    replaced(x, 1, (table) => permuted(table, 1, p.tokens, () => 0)),
  ),
  "rope: the last elements too are turned": {
    ...rope,
    oracle(p: (typeof rope.cases)[number], x: Inputs, out) {
      rope.oracle(p, x, out);
      out.forEach((v, i) => {
        if (i % p.dim >= p.rotary) out[i] = v * x[1]![0]!;
      });
    },
  } as Kernel,
  "router-score: no correction": withInputs(routerScore, (x) => replaced(x, 1, zeros)),
  "router-score: no sigmoid": {
    ...routerScore,
    oracle: ({ experts }: (typeof routerScore.cases)[number], [logits, bias]: Inputs, out) =>
      out.set(logits!.map((v, i) => v + bias![i % experts]!)),
  } as Kernel,
  "router-choose: the later of equals": withParams(
    {
      ...routerChoose,
      oracle(p, [scores], out) {
        const last = p.experts - 1;
        const mirrored = permuted(scores!, p.tokens, p.experts, (e) => last - e);
        routerChoose.oracle(p, [mirrored], out);
        out.set(permuted(out, p.tokens, p.topK, (k) => p.topK - 1 - k).map((e) => last - e));
      },
    },
    (p) => p,
  ),
  "router-choose: no groups": running(routerChoose, (p) => ({ ...p, groups: 1, topGroups: 1 })),
  "router-choose: a group too many": running(routerChoose, (p) => ({
    ...p,
    topGroups: Math.min(p.topGroups + 1, p.groups),
  })),
  "router-choose: groups by their best alone": believing(
    routerChoose,
    (p) => ({ ...p, groups: 1, topGroups: 1 }),
    (x, p) =>
      replaced(x, 0, (scores) => {
        const size = p.experts / p.groups;
        const bestOf = (i: number) => Math.max(...scores.subarray(i - (i % size), i - (i % size) + size));
        const kept = (i: number) => {
          const row = i - (i % p.experts);
          const worth = Array.from({ length: p.groups }, (_, g) => bestOf(row + g * size));
          return bestOf(i) >= worth.sort((a, b) => b - a)[p.topGroups - 1]!;
        };
        return scores.map((v, i) => (kept(i) ? v : -1e6));
      }),
  ),
  "router-weigh: not normalised": withParams(routerWeigh, (p) => ({ ...p, normalise: false })),
  "router-weigh: no scale": withParams(routerWeigh, (p) => ({ ...p, scale: 1 })),
  "router-weigh: scores for logits": withInputs(routerWeigh, (x) =>
    replaced(x, 0, (logits) => logits.map((v) => 1 / (1 + Math.exp(-v)))),
  ),
  "router-softmax: always over all": withParams(routerSoftmax, (p) => ({ ...p, over: "all" as const })),
  "router-softmax: never over all": withParams(routerSoftmax, (p) => ({ ...p, over: "chosen" as const })),
  "router-softmax: experts of the first token": withInputs(routerSoftmax, (x, p) =>
    replaced(x, 1, (chosen) => permuted(chosen, 1, p.tokens, () => 0)),
  ),
  "router-softmax: logits of half": withInputs(routerSoftmax, (x) =>
    replaced(x, 0, (logits) => logits.map((v) => v / 2)),
  ),
  "ssd: head k uses group k mod groups": moduloGroups(ssd, (p) => p.groups, [0, 3], [4, 5, 6]),
  "ssd: B and C exchanged": withInputs(ssd, (x) => swapped(x, 1, 2)),
  "ssd: no D": withInputs(ssd, (x) => replaced(x, 5, zeros)),
  "ssd: no dt_bias": withInputs(ssd, (x) => replaced(x, 6, zeros)),
  "ssd: A for A_log": withInputs(ssd, (x) => replaced(x, 4, (a) => a.map((v) => Math.log(Math.abs(v))))),
  "ssd: no limits of delta": withParams(ssd, (p) => ({ ...p, dtMin: 0, dtMax: Infinity })),
  "ssd: delta at least 0.001": withParams(ssd, (p) => ({ ...p, dtMin: Math.max(p.dtMin, 0.001) })),
  "ssd-step: starts with zeros": withInputs(ssdStep, (x) => replaced(x, 0, zeros)),
  "ssd-step: the state before a hundredth larger": withInputs(ssdStep, (x) =>
    replaced(x, 0, (s) => s.map((v) => 1.01 * v)),
  ),
  "ssd-step: returns the state before": {
    ...ssdStep,
    oracle(p: (typeof ssdStep.cases)[number], x: Inputs, out) {
      ssdStep.oracle(p, x, out);
      out.set(x[0]!, p.tokens * p.heads * p.headDim);
    },
  } as Kernel,
  "ssd-step: B and C exchanged": withInputs(ssdStep, (x) => swapped(x, 2, 3)),
  "attention: head a uses pair a mod kvHeads": moduloGroups(attention, (p) => p.kvHeads, [0], []),
  "attention: scores not scaled": withInputs(attention, (x, p) =>
    replaced(x, 0, (q) => q.map((v) => v * Math.sqrt(p.dim))),
  ),
  "attention: scaled by the root of dim, whatever the scale": withParams(attention, (p) => ({
    ...p,
    scale: 1 / Math.sqrt(p.dim),
  })),
  "attention: no window": running(attention, (p) => ({ ...p, window: 0 })),
  "attention: the window is without the token itself": running(attention, (p) => ({
    ...p,
    window: p.window && p.window + 1,
  })),
  "attention: a window of one token less": running(attention, (p) => ({
    ...p,
    window: p.window && Math.max(1, p.window - 1),
  })),
  "attention: k and v exchanged": withInputs(attention, (x) => swapped(x, 1, 2)),
  "attention: ignores earlier tokens": running(attention, (p) => ({ ...p, past: 0 })),
  "attention: sees only the future": {
    ...attention,
    cases: attention.cases.filter(({ past }) => past === 0),
    oracle(p: (typeof attention.cases)[number], x: Inputs, out) {
      const result = new Float64Array(out.length);
      attention.oracle(
        p,
        x.map((operand) => reversedTime(operand, p.tokens)),
        result,
      );
      out.set(reversedTime(result, p.tokens));
    },
  } as Kernel,
};

describe("a wrong kernel exceeds its bound", () => {
  it.each(Object.entries(mutants))("%s", async (_, mutant) => {
    const [row] = await checkKernels(backend, [mutant]);
    expect(row!.ok, `error ${row!.worstError}, bound ${row!.bound}`).toBe(false);
  });
});
