/** Stages of an MLP: down(silu(gate(u)) * up(u)), or without a gate down(relu(up(u))^2). */
import type { Stage } from "../../forward.ts";
import type { Dims } from "../../structure.ts";
import {
  addBias,
  kernelStage,
  multiplier,
  norm,
  productOf,
  productWithBias,
  squaredRelu,
} from "../stages.ts";
import type { MlpDims } from "./dims.ts";

interface MlpStreams<D> {
  /** the stream that the output projection produces */
  readonly to?: string;
  /** multiplier of the gate, before its activation; absent: it is not multiplied */
  readonly gateFactor?: (d: D) => number;
}

export const gatedMlpStages = <D extends MlpDims>(d: D, streams?: MlpStreams<D>): readonly Stage<D>[] => [
  norm("u", "gain"), // [T, hidden]
  ...gatedMlp(d, streams),
];

/** The stages without the norm before them. */
export function gatedMlp<D extends MlpDims>(
  d: D,
  { to = "out", gateFactor }: MlpStreams<D> = {},
): readonly Stage<D>[] {
  const hasBias = d.mlpBias === 1;
  const gate = gateFactor === undefined ? "gate" : "gate.scaled";
  return [
    { op: "linear", from: "u", to: ["gate", "up"].map((name) => productOf(name, d.mlpBias)) }, // [T, ffn] twice
    ...(hasBias ? [addBias<D>("gate", (d) => d.ffn), addBias<D>("up", (d) => d.ffn)] : []),
    ...(gateFactor === undefined ? [] : [multiplier<D>(gate, "gate", (d) => d.ffn, gateFactor)]),
    swiglu("act", gate, "up", (d) => d.ffn),
    ...productWithBias<D>(hasBias, "act", to, (d) => d.hidden),
  ];
}

/** @param entrance the norm, from "residual" to "u" */
export function squaredReluMlpStages<D extends MlpDims>(d: D, entrance: Stage<D>): readonly Stage<D>[] {
  const hasBias = d.mlpBias === 1;
  return [
    entrance, // [T, hidden]
    ...productWithBias<D>(hasBias, "u", "up", (d) => d.ffn), // [T, ffn]
    squaredRelu("act", "up", (d: D) => d.ffn),
    ...productWithBias<D>(hasBias, "act", "out", (d) => d.hidden),
  ];
}

/** silu(gate) * up */
export const swiglu = <D extends Dims>(
  to: string,
  gate: string,
  up: string,
  width: (d: D) => number,
): Stage<D> => ({
  ...kernelStage("swiglu", to, [gate, up], [], (d: D, rows) => ({ count: rows * width(d) })),
  // the product of small numbers may be too small for F32
  silent: ([gates, ups]) => gates!.every((g, i) => Math.fround((g / (1 + Math.exp(-g))) * ups![i]!) === 0),
});

/** Elements in one row of each stream of an MLP, gated or not. */
export const mlpStreams = (d: MlpDims): Readonly<Record<string, number>> => ({
  ...{ "gate.product": d.ffn, gate: d.ffn, "gate.scaled": d.ffn, "up.product": d.ffn, up: d.ffn, act: d.ffn },
});
