/** A cut: which parts of a model stay. Numbers and indices are those of the source, in ascending order. */
export interface Cut {
  /** layers of the main stack that stay */
  readonly layers: readonly number[];
  /** channels of the MLP that stay, by layer; a layer that is absent keeps all of them */
  readonly ffn: ReadonlyMap<number, readonly number[]>;
  /** Mamba heads that stay, by layer: the same number in each group */
  readonly mambaHeads: ReadonlyMap<number, readonly number[]>;
  /** query heads that stay, by layer: the same number for each KV head */
  readonly heads: ReadonlyMap<number, readonly number[]>;
  /** channels of the hidden state that stay; absent: all of them */
  readonly hidden?: readonly number[];
  /** gains of gated norms that lose heads are multiplied by √(all / kept); absent: they stay as they are */
  readonly rescaledGains?: true;
}
