/**
 * Stages of an attention layer: from the residual stream to "out". Queries and keys may have biases, a norm over each head,
 * and rotary positions, in this order.
 */
import { rotaryTable } from "../../../../kernels/rotary-table.ts";
import type { Stage } from "../../forward.ts";
import {
  addBias,
  isZero,
  kernelStage,
  linear,
  multiplier,
  norm,
  productOf,
  productWithBias,
  stageWithHistory,
} from "../stages.ts";
import type { AttentionDims } from "./dims.ts";

/** The stream of keys that attention reads, and that a KV cache keeps. @param product keys before their norm */
export function cachedKeys({ rotary, qkNorm }: AttentionDims, product = "k"): string {
  if (rotary !== null) return "k.turned";
  return qkNorm === 1 ? "k.normed" : product;
}

/** RMS norm over each head of a stream. */
const headNorm = <D extends AttentionDims>(
  from: string,
  name: "q" | "k",
  heads: (d: D) => number,
): Stage<D> => ({
  ...kernelStage("rmsNorm", `${name}.normed`, [from], [`${name}.gain`], (d: D, rows) => ({
    ...{ tokens: rows * heads(d), width: d.headDim, eps: d.eps },
  })),
  needs: { [`${name}.gain`]: [from] },
});

/** Rotates each head by an angle that depends on the position of its token. */
const turned = <D extends AttentionDims>(
  from: string,
  name: "q" | "k",
  heads: (d: D) => number,
): Stage<D> => ({
  ...kernelStage("rope", `${name}.turned`, [from], [], (d: D, tokens) => ({
    ...{ tokens, heads: heads(d), dim: d.headDim, rotary: d.rotary!.rotary, interleaved: false },
  })), // [T, heads, headDim]
  table: (d, first, rows) => rotaryTable(d.rotary!, first, rows), // [T, rotary]
  silent: ([values]) => isZero(values!),
});

/**
 * @param window  whether each token sees only the last `window` tokens
 * @param entrance the norm, from "residual" to "u"
 */
export function attentionStages<D extends AttentionDims>(
  d: D,
  window: boolean,
  entrance: Stage<D> = norm("u", "gain"),
): readonly Stage<D>[] {
  return [entrance, ...attentionMixer(d, { window })];
}

interface MixerStreams<D> {
  /** whether each token sees only the last `window` tokens */
  readonly window?: boolean;
  /** the normed stream */
  readonly from?: string;
  /** the stream that the output projection produces */
  readonly to?: string;
  /** multiplier of the keys; absent: they are not multiplied. A KV cache keeps them multiplied, so no other factor can hold it */
  readonly keyFactor?: (d: D) => number;
}

/** The stages without the norm before them. */
export function attentionMixer<D extends AttentionDims>(
  d: D,
  { window = false, from = "u", to = "out", keyFactor }: MixerStreams<D>,
): readonly Stage<D>[] {
  const hasBias = d.qkvBias === 1;
  const products = ["q", "k", "v"].map((name) => productOf(name, d.qkvBias));
  const key = keyFactor === undefined ? "k" : "k.scaled";
  const [q, k] = d.qkNorm === 1 ? ["q.normed", "k.normed"] : ["q", key];
  const [queries, keys] = [d.rotary === null ? q! : "q.turned", cachedKeys(d, key)];
  return [
    linear(from, ...products), // [T, heads * headDim], [T, kvHeads * headDim] twice
    ...(hasBias
      ? [addBias<D>("q", (d) => d.q), addBias<D>("k", (d) => d.kv), addBias<D>("v", (d) => d.kv)]
      : []),
    ...(keyFactor === undefined ? [] : [multiplier<D>(key, "k", (d) => d.kv, keyFactor)]),
    ...(d.qkNorm === 1
      ? [headNorm<D>("q", "q", (d) => d.heads), headNorm<D>(key, "k", (d) => d.kvHeads)]
      : []),
    ...(d.rotary === null ? [] : [turned<D>(q!, "q", (d) => d.heads), turned<D>(k!, "k", (d) => d.kvHeads)]),
    {
      ...stageWithHistory(
        "attention",
        "a",
        [queries, keys, "v"],
        [],
        { of: [keys, "v"] },
        (d: D, tokens, past) => ({
          ...{ tokens, past, heads: d.heads, kvHeads: d.kvHeads, dim: d.headDim },
          ...{ scale: d.scoreScale, window: window ? d.window : 0 },
        }),
      ), // [T, heads * headDim]
      silent: ([, , v]) => isZero(v!),
    },
    ...productWithBias<D>(d.outBias === 1, "a", to, (d) => d.hidden), // [T, hidden]
  ];
}

/** Elements in one row of each stream. */
export const attentionStreams = (d: AttentionDims): Readonly<Record<string, number>> => ({
  ...{ "q.product": d.q, q: d.q, "q.normed": d.q, "q.turned": d.q },
  ...{ "k.product": d.kv, k: d.kv, "k.scaled": d.kv, "k.normed": d.kv, "k.turned": d.kv },
  ...{ "v.product": d.kv, v: d.kv, a: d.q },
});

/** Heads, for positive controls. */
export function attentionBlocks(d: AttentionDims): Readonly<Record<string, { of: string; count: number }>> {
  const head = { of: "head", count: d.headDim };
  const names = [...Object.keys(attentionStreams(d)), "q.bias", "k.bias", "v.bias"];
  return Object.fromEntries(names.map((name) => [name, head]));
}
