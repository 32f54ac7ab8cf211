/**
 * Which stored tensors of a distributed checkpoint of Megatron the stages of a Mamba mixer read. Written by hand, apart from
 * the rules, because it checks them: if they exchange z and x, verification must find it.
 */
import type { Use } from "../../forward.ts";
import type { MambaDims } from "../mamba/dims.ts";
import { columns, rows } from "./native-uses.ts";

const inner = (d: MambaDims) => d.inner;
const groupState = (d: MambaDims) => d.groupState;
const mambaHeads = (d: MambaDims) => d.mambaHeads;

/**
 * Uses of the tensors that distributed checkpoints and ranks both have.
 *
 * @param prefix name of the module, with its dot
 * @param to     the stream that the mixer produces
 */
export const sharedMambaUses = <D extends MambaDims>(prefix = "mixer.", to = "out"): readonly Use<D>[] => [
  rows(`${prefix}A_log`, "A_log", mambaHeads),
  rows(`${prefix}D`, "D", mambaHeads),
  rows(`${prefix}dt_bias`, "dt_bias", mambaHeads),
  rows(`${prefix}norm.weight`, "gate.gain", inner),
  columns(`${prefix}out_proj.weight`, to, inner),
];

/** Uses of the fused tensors of a distributed checkpoint, which has their parts by name. */
export const distMambaUses = <D extends MambaDims>(prefix = "mixer."): readonly Use<D>[] => [
  rows(`${prefix}in_proj.weight.z`, "z", inner),
  rows(`${prefix}in_proj.weight.x`, "x", inner),
  rows(`${prefix}in_proj.weight.B`, "B", groupState),
  rows(`${prefix}in_proj.weight.C`, "C", groupState),
  rows(`${prefix}in_proj.weight.dt`, "dt", mambaHeads),
  ...[
    ["weight", "taps"],
    ["bias", "bias"],
  ].flatMap(([stored, to]) => [
    rows<D>(`${prefix}conv1d.${stored}.x`, `${to}.x`, inner),
    rows<D>(`${prefix}conv1d.${stored}.B`, `${to}.B`, groupState),
    rows<D>(`${prefix}conv1d.${stored}.C`, `${to}.C`, groupState),
  ]),
];
