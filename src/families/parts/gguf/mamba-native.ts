/** Which stored tensors of a GGUF the stages of a Mamba mixer read. Written by hand, apart from the rules. */
import type { OutputRows, Use } from "../../forward.ts";
import type { MambaDims } from "../mamba/dims.ts";
import { whole } from "../whole.ts";

const rows = (to: string, from: number, count: number): OutputRows => ({ to, at: 0, from, count });

/** x, B and C, as the convolution has them. */
const channels = <D extends MambaDims>(name: string, parameter: string): Use<D> => ({
  name,
  outputs: (d) => [
    rows(`${parameter}.x`, 0, d.inner),
    rows(`${parameter}.B`, d.inner, d.groupState),
    rows(`${parameter}.C`, d.inner + d.groupState, d.groupState),
  ],
});

/**
 * Uses without the norm before the mixer.
 *
 * @param to the stream that the output projection produces
 */
export const mambaUses = <D extends MambaDims>(to = "out"): readonly Use<D>[] => [
  {
    name: "ssm_in.weight",
    outputs: (d) => [
      rows("z", 0, d.inner),
      rows("x", d.inner, d.inner),
      rows("B", 2 * d.inner, d.groupState),
      rows("C", 2 * d.inner + d.groupState, d.groupState),
      rows("dt", 2 * d.inner + 2 * d.groupState, d.mambaHeads),
    ],
  },
  channels<D>("ssm_conv1d.weight", "taps"),
  channels<D>("ssm_conv1d.bias", "bias"),
  whole<D>("ssm_a", "A_log", (d) => d.mambaHeads), // the logarithm of its negative is what a run reads
  whole<D>("ssm_d", "D", (d) => d.mambaHeads),
  whole<D>("ssm_dt.bias", "dt_bias", (d) => d.mambaHeads),
  whole<D>("ssm_norm.weight", "gate.gain", (d) => d.groups), // [groups, inner / groups]: a row is a group
  whole<D>("ssm_out.weight", to, (d) => d.hidden),
];
