/**
 * Fingerprint: a record of a forward pass in a few kilobytes. A later forward pass can be compared with it, without the
 * source checkpoint and on any backend. The record has, for each position, the largest logits and a digest of all logits
 * and, for each layer, the norm of the hidden state.
 */
import { createHash, type Hash } from "node:crypto";
import { z } from "zod";
import { RecordedExperts, recordExperts } from "./recorded-experts.ts";

/** Logits recorded for each position. */
const TOP = 8;

const value = z.number().or(z.literal(["NaN", "Infinity", "-Infinity"]));

export const Fingerprint = z.strictObject({
  /** backend of the forward pass; WASM kernels give the same bits on every machine */
  backend: z.string(),
  positions: z
    .array(
      z.strictObject({
        /** token ids and their logits, the largest logit first */
        top: z.array(z.tuple([z.int().nonnegative(), value])).readonly(),
        /** SHA-256 of all logits of the position, F32, little endian */
        sha256: z.string().regex(/^[0-9a-f]{64}$/),
      }),
    )
    .readonly(),
  /** L2 norms of the residual stream: after the embedding, then after each layer */
  norms: z.array(value).readonly(),
  /** one entry for each MoE layer; missing in dense models and in certificates written before this field existed */
  experts: z.array(RecordedExperts).readonly().exactOptional(),
});
export type Fingerprint = z.infer<typeof Fingerprint>;
type Value = z.infer<typeof value>;

/** What a recorder has collected between two layers, before any logits. */
export const FingerprintRecord = z.strictObject({
  norms: z.array(value).readonly(),
  experts: z.array(RecordedExperts).readonly(),
});
type FingerprintRecord = z.infer<typeof FingerprintRecord>;

/** Collects the fingerprint during a run: norms layer by layer, logits in blocks of token ids. */
export class FingerprintRecorder {
  readonly #hashes: readonly Hash[];
  readonly #top: [number, number][][];
  readonly #norms: Value[] = [];
  readonly #experts: RecordedExperts[] = [];
  /** for each position: requested token id -> logit, NaN until computed */
  readonly requested: readonly Map<number, number>[];

  /**
   * @param tokens number of positions
   * @param words  for each position, token ids whose logits are recorded in `requested` whatever their size
   */
  constructor(tokens: number, words: readonly (readonly number[])[] = []) {
    this.#hashes = Array.from({ length: tokens }, () => createHash("sha256"));
    this.#top = Array.from({ length: tokens }, () => []);
    this.requested = Array.from(
      { length: tokens },
      (_, t) => new Map((words[t] ?? []).map((word) => [word, NaN])),
    );
  }

  get record(): FingerprintRecord {
    return { norms: [...this.#norms], experts: [...this.#experts] };
  }

  /** Goes on with what another recorder has collected. */
  restore({ norms, experts }: FingerprintRecord): void {
    this.#norms.push(...norms);
    this.#experts.push(...experts);
  }

  /** Adds the norm of a residual stream [T, hidden]; called for the embedding, then after each layer. */
  residual(stream: Float32Array): void {
    let sum = 0;
    for (let i = 0; i < stream.length; i++) sum += stream[i]! * stream[i]!; // `for of` takes ten times as long
    this.#norms.push(toJsonNumber(Math.sqrt(sum)));
  }

  /**
   * Records the experts of a layer of the main stack.
   *
   * @param followed [T, chosen a token] the experts that computed
   * @param own      [T, chosen a token] the experts that the layer's own router chose
   */
  experts(layer: number, followed: Float32Array, own: Float32Array): void {
    this.#experts.push(recordExperts(layer, followed, own));
  }

  /** Adds logits of the token ids [lo, lo + width), [T, width]; blocks must come in order. */
  logits(lo: number, width: number, block: Float32Array): void {
    for (const [t, hash] of this.#hashes.entries()) {
      const row = block.subarray(t * width, (t + 1) * width);
      hash.update(new Uint8Array(row.buffer, row.byteOffset, row.byteLength));
      const top = this.#top[t]!;
      for (let i = 0; i < width; i++) {
        const logit = row[i]!;
        if (top.length === TOP && !(logit > top[TOP - 1]![1])) continue;
        const before = top.findIndex(([, other]) => logit > other);
        top.splice(before === -1 ? top.length : before, 0, [lo + i, logit]);
        top.splice(TOP);
      }
      const requested = this.requested[t]!;
      for (const word of requested.keys()) {
        if (word >= lo && word < lo + width) requested.set(word, row[word - lo]!);
      }
    }
  }

  finish(backend: string): Fingerprint {
    const positions = this.#hashes.map((hash, t) => ({
      top: this.#top[t]!.map(([word, logit]): [number, Value] => [word, toJsonNumber(logit)]),
      sha256: hash.digest("hex"),
    }));
    const experts = this.#experts;
    return { backend, positions, norms: this.#norms, ...(experts.length > 0 && { experts }) };
  }
}

/** Nine digits represent every F32 exactly. JSON cannot represent NaN and infinities, so these become strings. */
function toJsonNumber(x: number): Value {
  return Number.isFinite(x) ? Number(x.toPrecision(9)) : (String(x) as Value);
}

/**
 * Largest accepted relative L2 between fingerprints of the same model on two backends. Correct F32 kernels differ end to
 * end by about 1e-6 on models of a dozen layers; for a hundred layers the errors add up to about ten times that. The
 * smallest mistake that the goldens list (another epsilon) changes logits by 1.3e-4.
 */
export const FINGERPRINT_BOUND = 5e-5;

export interface FingerprintDistance {
  /** all logits and norms equal the recorded values bit for bit */
  readonly exact: boolean;
  /** relative L2 over the recorded logits */
  readonly logitsRelL2: number;
  /** largest relative difference of a layer's norm */
  readonly normsRel: number;
  /** first layer whose norm exceeds FINGERPRINT_BOUND; -1 is the embedding; null: no layer exceeds it */
  readonly firstLayer: number | null;
}

/**
 * Compares a new forward pass with a recorded one.
 *
 * @param recorder the recorder of `now`, created with the token ids that `recorded` lists
 */
export function compareFingerprints(
  recorded: Fingerprint,
  now: Fingerprint,
  recorder: FingerprintRecorder,
): FingerprintDistance {
  let [difference, reference] = [0, 0];
  for (const [t, { top }] of recorded.positions.entries()) {
    for (const [word, logit] of top) {
      const [before, after] = [Number(logit), Number(toJsonNumber(recorder.requested[t]?.get(word) ?? NaN))];
      if (Number.isFinite(before)) reference += before * before;
      if (!Object.is(before, after)) difference += (before - after) ** 2;
    }
  }
  const changes = recorded.norms.map((norm, i) => {
    const [before, after] = [Number(norm), Number(now.norms[i])];
    return Object.is(before, after) ? 0 : Math.abs(before - after) / Math.abs(before);
  });
  const first = changes.findIndex((change) => !(change <= FINGERPRINT_BOUND));
  return {
    exact:
      JSON.stringify(recorded.positions) === JSON.stringify(now.positions) && changes.every((c) => c === 0),
    logitsRelL2: difference === 0 ? 0 : Math.sqrt(difference / reference),
    normsRel: changes.reduce((a, b) => (b > a || Number.isNaN(b) ? b : a), 0),
    firstLayer: first === -1 ? null : first - 1,
  };
}
