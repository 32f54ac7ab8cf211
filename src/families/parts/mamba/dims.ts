/** Widths of a Mamba-2 layer. */
import type { Settings } from "../../structure.ts";
import type { StreamDims } from "../stages.ts";

interface MambaWidths {
  /** eps of the norm inside the mixer */
  readonly mixerEps: number;
  readonly dtMin: number;
  readonly dtMax: number;
  /** mambaHeads * mambaHeadDim */
  readonly inner: number;
  readonly mambaHeads: number;
  readonly mambaHeadDim: number;
  readonly groups: number;
  readonly state: number;
  /** groups * state: elements of B, and of C */
  readonly groupState: number;
  /** channels of the convolution: x, B and C */
  readonly conv: number;
  readonly taps: number;
}

export interface MambaDims extends StreamDims, MambaWidths {
  /** groups of channels that the gated norm divides by their own root mean square; 0: the gate alone, without a norm */
  readonly normGroups: number;
  /** 1: the norm comes before the gate */
  readonly normFirst: number;
  /** 1: the input projection has a bias */
  readonly inBias: number;
  /** 1: the output projection of the mixer has a bias */
  readonly ssmOutBias: number;
}

/** The widths that settings describe; 0 where no layer of the model uses them. */
export function mambaWidths(settings: Settings): MambaWidths {
  const of = (name: string) => (typeof settings[name] === "number" ? settings[name] : 0);
  const inner = of("mambaHeads") * of("mambaHeadDim");
  const groupState = of("groups") * of("state");
  return {
    mixerEps: of("mixerEps") || of("eps"),
    dtMin: of("dtMin"),
    dtMax: settings.dtMax === "Infinity" ? Infinity : of("dtMax"),
    inner,
    mambaHeads: of("mambaHeads"),
    mambaHeadDim: of("mambaHeadDim"),
    groups: of("groups"),
    state: of("state"),
    groupState,
    conv: inner + 2 * groupState,
    taps: of("convKernel"),
  };
}

/** Rows of the parts of the input projection, in their order. */
export const inParts = (d: MambaDims) => ({
  z: d.inner,
  x: d.inner,
  B: d.groupState,
  C: d.groupState,
  dt: d.mambaHeads,
});
