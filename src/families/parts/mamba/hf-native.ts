/**
 * Which stored tensors of a Hugging Face checkpoint the stages of a Mamba mixer read. Written by hand, apart from the rules,
 * because it checks them: if they exchange z and x, verification must find it.
 */
import type { OutputRows, Use } from "../../forward.ts";
import { productOf } from "../stages.ts";
import { whole } from "../whole.ts";
import type { MambaDims } from "./dims.ts";

/** Rows [from, from + count) that produce a whole stream or parameter. */
const rows = (to: string, from: number, count: number): OutputRows => ({ to, at: 0, from, count });

/** The rows of the input projection, in the order z, x, B, C, dt. */
const inRows = (d: MambaDims, name: (part: string) => string): readonly OutputRows[] => [
  rows(name("z"), 0, d.inner),
  rows(name("x"), d.inner, d.inner),
  rows(name("B"), 2 * d.inner, d.groupState),
  rows(name("C"), 2 * d.inner + d.groupState, d.groupState),
  rows(name("dt"), 2 * d.inner + 2 * d.groupState, d.mambaHeads),
];

/** The channels of the convolution, in the order x, B, C. */
const channels = (parameter: string, d: MambaDims): readonly OutputRows[] => [
  rows(`${parameter}.x`, 0, d.inner),
  rows(`${parameter}.B`, d.inner, d.groupState),
  rows(`${parameter}.C`, d.inner + d.groupState, d.groupState),
];

/**
 * @param prefix name of the module, with its dot
 * @param to     the stream that the mixer produces
 */
export function mambaUses<D extends MambaDims>(prefix = "mamba.", to = "out"): readonly Use<D>[] {
  return [
    {
      name: `${prefix}in_proj.weight`,
      outputs: (d) => inRows(d, (part) => productOf(part, d.inBias)),
    },
    { name: `${prefix}in_proj.bias`, outputs: (d) => inRows(d, (part) => `${part}.bias`) },
    { name: `${prefix}conv1d.weight`, outputs: (d) => channels("taps", d) },
    { name: `${prefix}conv1d.bias`, outputs: (d) => channels("bias", d) },
    whole(`${prefix}A_log`, "A_log", (d) => d.mambaHeads),
    whole(`${prefix}D`, "D", (d) => d.mambaHeads),
    whole(`${prefix}dt_bias`, "dt_bias", (d) => d.mambaHeads),
    whole(`${prefix}norm.weight`, "gate.gain", (d) => d.inner),
    whole(
      `${prefix}out_proj.weight`,
      (d) => productOf(to, d.ssmOutBias),
      (d) => d.hidden,
    ),
    whole(`${prefix}out_proj.bias`, `${to}.bias`, (d) => d.hidden),
  ];
}
