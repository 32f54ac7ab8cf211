/** What a run of a source beside its cut model needs, and what it gives. */
import type { Backend } from "../../kernels/kernel.ts";
import type { Watch } from "../core/events.ts";
import type { Forward } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";
import type { Fingerprint } from "../inference/fingerprint.ts";
import type { ModelRunner } from "../inference/runner.ts";
import type { Control } from "../verify/controls/trials.ts";
import type { BadDoor } from "../verify/lockstep-wiring.ts";
import type { LogitsSummary } from "../verify/metrics.ts";
import type { LayerDrift } from "../verify/report.ts";
import type { Cut } from "./cut.ts";
import type { Damage } from "./damage.ts";

interface CutSide {
  readonly runner: ModelRunner;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
}

export interface CutLockstepOptions {
  readonly backend: Backend;
  readonly forward: Forward;
  readonly cut: Cut;
  readonly source: CutSide;
  readonly pruned: CutSide;
  /** each is run from an empty state */
  readonly prompts: readonly (readonly number[])[];
  /** most bytes of a block of logits, for each run */
  readonly blockBytes: number;
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

export interface CutLockstepResult {
  readonly layers: readonly LayerDrift[];
  readonly wiring: { readonly maxRelL2: number; readonly limit: number };
  /** in order of execution, by the layers of the cut model */
  readonly bad: readonly BadDoor[];
  readonly flips: number;
  /** of the cut model against the masked source */
  readonly logits: LogitsSummary;
  /** of the cut model against the whole source */
  readonly damage: Damage;
  readonly controls: readonly Control[];
  /** of the cut model on the first prompt */
  readonly fingerprint: Fingerprint;
}
