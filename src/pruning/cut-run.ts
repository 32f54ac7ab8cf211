/** What a run of a source beside its cut model needs, and what it gives. */
import type { PlainFloat } from "../core/float.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { ModelRunner } from "../inference/runner.ts";
import type { LockstepOptions, LockstepResult } from "../verify/lockstep.ts";
import type { Cut } from "./cut.ts";
import type { Damage } from "./damage.ts";

interface CutSide {
  readonly runner: ModelRunner;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
}

export interface CutLockstepOptions
  extends Pick<LockstepOptions, "backend" | "forward" | "blockBytes" | "watch" | "signal"> {
  readonly cut: Cut;
  /** by layer of the source, the type in which a rescaled gain is stored; empty: gains stay as they are */
  readonly gains: ReadonlyMap<number, PlainFloat>;
  readonly source: CutSide;
  readonly pruned: CutSide;
  /** each is run from an empty state */
  readonly prompts: readonly (readonly number[])[];
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
}

/** Layers are those of the cut model; `logits` compares it with the masked source; the fingerprint is of the first prompt. */
export interface CutLockstepResult extends Omit<LockstepResult, "inOrder"> {
  /** of the cut model against the whole source */
  readonly damage: Damage;
}
