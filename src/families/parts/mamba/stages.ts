/**
 * Stages of a Mamba-2 mixer: from the normed stream to the stream that the layer adds.
 * @see Transformers are SSMs, arXiv 2405.21060
 */
import type { SsdParams } from "../../../../kernels/definitions/ssd.ts";
import { stateLength } from "../../../../kernels/definitions/ssd-step.ts";
import type { Stage } from "../../forward.ts";
import { swiglu } from "../mlp/stages.ts";
import {
  addBias,
  kernelStage,
  linear,
  multiplier,
  productOf,
  productWithBias,
  runKernel,
  stageWithHistory,
} from "../stages.ts";
import { inParts, type MambaDims } from "./dims.ts";

type Part = keyof ReturnType<typeof inParts>;

const PARTS: readonly Part[] = ["z", "x", "B", "C", "dt"];

/** Causal depthwise convolution over time, then SiLU, of one of the parts x, B, C. */
const conv = <D extends MambaDims>(part: "x" | "B" | "C", from: string): Stage<D> => ({
  ...stageWithHistory(
    "conv1d",
    `conv.${part}`,
    [from],
    [`taps.${part}`, `bias.${part}`],
    { of: [from], most: (d) => d.taps - 1 },
    (d: D, tokens, past) => ({ tokens, past, width: inParts(d)[part], kernel: d.taps }),
  ),
  needs: { [`taps.${part}`]: [from] },
});

const scanOf = (d: MambaDims, tokens: number): SsdParams => ({
  tokens,
  heads: d.mambaHeads,
  headDim: d.mambaHeadDim,
  groups: d.groups,
  state: d.state,
  dtMin: d.dtMin,
  dtMax: d.dtMax,
});

const scan = <D extends MambaDims>(dt: string): Stage<D> => ({
  ...kernelStage("ssd", "y", ["conv.x", "conv.B", "conv.C", dt], ["A_log", "D", "dt_bias"], scanOf), // [T, inner]
  needs: {
    A_log: ["conv.x", "conv.B", "conv.C"],
    D: ["conv.x"],
    dt_bias: ["conv.x", "conv.B", "conv.C"],
  },
  carry: {
    keeps: "state",
    elements: (d) => stateLength(scanOf(d, 0)),
    run: (backend, d, rows, inputs, output) => runKernel("ssdStep", backend, scanOf(d, rows), inputs, output),
  },
});

/** The gate, with its norm if the model has one: [T, inner]. */
const gate = <D extends MambaDims>(d: D, z: string): Stage<D> =>
  d.normGroups === 0
    ? swiglu("g", z, "y", (d) => d.inner)
    : {
        ...kernelStage("gatedNorm", "g", ["y", z], ["gate.gain"], (d: D, tokens) => ({
          ...{ tokens, width: d.inner, groups: d.normGroups, eps: d.mixerEps, normFirst: d.normFirst === 1 },
        })),
        needs: { "gate.gain": ["y", z] },
      };

/**
 * @param from    the normed stream
 * @param to      the stream that the output projection produces
 * @param factors multipliers of z, x, B, C and dt, after their biases; absent: none is multiplied
 */
export function mambaStages<D extends MambaDims>(
  d: D,
  { from = "u", to = "out", factors }: MixerStreams<D> = {},
): readonly Stage<D>[] {
  const read = (part: Part) => (factors === undefined ? part : `${part}.scaled`);
  const width = (part: Part) => (d: D) => inParts(d)[part];
  return [
    linear(from, ...PARTS.map((part) => productOf(part, d.inBias))), // [T, inner] twice, [T, groups * state] twice, [T, heads]
    ...(d.inBias === 1 ? PARTS.map((part) => addBias(part, width(part))) : []),
    ...(factors === undefined
      ? []
      : PARTS.map((part, i) => multiplier(read(part), part, width(part), (d: D) => factors(d)[i]!))),
    conv("x", read("x")),
    conv("B", read("B")),
    conv("C", read("C")),
    scan(read("dt")),
    gate(d, read("z")),
    ...productWithBias<D>(d.ssmOutBias === 1, "g", to, (d) => d.hidden), // [T, hidden]
  ];
}

interface MixerStreams<D> {
  readonly from?: string;
  readonly to?: string;
  readonly factors?: (d: D) => readonly number[];
}

/** Elements in one row of each stream. */
export function mambaStreams(d: MambaDims): Readonly<Record<string, number>> {
  const parts = Object.entries(inParts(d)).flatMap(([part, width]) =>
    [part, `${part}.product`, `${part}.scaled`].map((name) => [name, width] as const),
  );
  return {
    ...Object.fromEntries(parts),
    ...{ "conv.x": d.inner, "conv.B": d.groupState, "conv.C": d.groupState, y: d.inner, g: d.inner },
  };
}

/** Heads and groups, for positive controls. */
export function mambaBlocks(d: MambaDims): Readonly<Record<string, { of: string; count: number }>> {
  const head = { of: "head", count: d.mambaHeadDim };
  const group = { of: "group", count: d.state };
  const number = { of: "head", count: 1 }; // one number for each head
  const part = (name: Part, block: typeof head) =>
    ["", ".product", ".scaled", ".bias"].map((ending) => [name + ending, block] as const);
  const channels = (name: "x" | "B" | "C", block: typeof head) =>
    ["conv", "taps", "bias"].map((what) => [`${what}.${name}`, block] as const);
  return Object.fromEntries([
    ...part("z", head),
    ...part("x", head),
    ...part("B", group),
    ...part("C", group),
    ...part("dt", number),
    ...channels("x", head),
    ...channels("B", group),
    ...channels("C", group),
    ...["y", "g", "gate.gain"].map((name) => [name, head] as const),
    ...["A_log", "D", "dt_bias"].map((name) => [name, number] as const),
  ]);
}
