/**
 * What a model answered to a prompt, in a few kilobytes: enough to tell later, without the source and on any backend,
 * whether it still answers so. Per position the largest logits and a digest of all of them; per layer the norm of the
 * hidden state.
 */
import { createHash, type Hash } from "node:crypto";
import { z } from "zod";
import { RecordedExperts, recordExperts } from "./recorded-experts.ts";

/** Logits kept a position. */
const TOP = 8;

const value = z.number().or(z.enum(["NaN", "Infinity", "-Infinity"]));

export const Fingerprint = z.strictObject({
  /** which kernels computed it; the bits of WASM kernels are the same on every machine */
  backend: z.string(),
  positions: z
    .array(
      z.strictObject({
        /** words and their logits, the largest first */
        top: z.array(z.tuple([z.int().nonnegative(), value])).readonly(),
        /** SHA-256 of the position's logits, F32, little endian */
        sha256: z.string().regex(/^[0-9a-f]{64}$/),
      }),
    )
    .readonly(),
  /** L2 norms of the residual stream: of the embedding, and after each layer */
  norms: z.array(value).readonly(),
  /** of each layer that has any; absent where none has, and in certificates of old */
  experts: z.array(RecordedExperts).readonly().exactOptional(),
});
export type Fingerprint = z.infer<typeof Fingerprint>;
type Value = z.infer<typeof value>;

/** Takes the fingerprint of one run as it passes: norms layer by layer, logits in blocks of words. */
export class FingerprintTaker {
  readonly #hashes: readonly Hash[];
  readonly #top: [number, number][][];
  readonly #norms: Value[] = [];
  readonly #experts: RecordedExperts[] = [];
  /** logits at words that were asked for, by position */
  readonly asked: readonly Map<number, number>[];

  /** @param words at each position, words whose logits are wanted whatever their size */
  constructor(tokens: number, words: readonly (readonly number[])[] = []) {
    this.#hashes = Array.from({ length: tokens }, () => createHash("sha256"));
    this.#top = Array.from({ length: tokens }, () => []);
    this.asked = Array.from(
      { length: tokens },
      (_, t) => new Map((words[t] ?? []).map((word) => [word, NaN])),
    );
  }

  residual(stream: Float32Array): void {
    let sum = 0;
    for (let i = 0; i < stream.length; i++) sum += stream[i]! * stream[i]!; // an iterator takes ten times as long
    this.#norms.push(said(Math.sqrt(sum)));
  }

  /** Of a layer of the main stack. */
  experts(layer: number, followed: Float32Array, own: Float32Array): void {
    this.#experts.push(recordExperts(layer, followed, own));
  }

  /** Words [lo, lo + width) of every position, [T, width]; blocks come in order. */
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
      const asked = this.asked[t]!;
      for (const word of asked.keys()) if (word >= lo && word < lo + width) asked.set(word, row[word - lo]!);
    }
  }

  finish(backend: string): Fingerprint {
    const positions = this.#hashes.map((hash, t) => ({
      top: this.#top[t]!.map(([word, logit]): [number, Value] => [word, said(logit)]),
      sha256: hash.digest("hex"),
    }));
    const experts = this.#experts;
    return { backend, positions, norms: this.#norms, ...(experts.length > 0 && { experts }) };
  }
}

/** Nine digits hold every F32. JSON has no word for what is no number. */
function said(x: number): Value {
  return Number.isFinite(x) ? Number(x.toPrecision(9)) : (String(x) as Value);
}

/**
 * Largest relative L2 between fingerprints of one model on two backends. Correct F32 kernels differ end to end by about
 * 1e-6 on models of a dozen layers, and errors of a hundred layers add up to some ten times that; of the mistakes that
 * the goldens list, the mildest (another epsilon) moves logits by 1.3e-4.
 */
export const FINGERPRINT_BOUND = 5e-5;

export interface FingerprintDistance {
  /** every bit of every logit is the recorded one */
  readonly exact: boolean;
  /** relative L2 over the recorded logits */
  readonly logitsRelL2: number;
  /** largest relative difference of a layer's norm, and the first layer beyond the bound; -1 is the embedding */
  readonly normsRel: number;
  readonly firstLayer: number | null;
}

/** @param taken asked for the words that `recorded` holds */
export function compareFingerprints(
  recorded: Fingerprint,
  now: Fingerprint,
  taken: FingerprintTaker,
): FingerprintDistance {
  let [difference, reference] = [0, 0];
  for (const [t, { top }] of recorded.positions.entries()) {
    for (const [word, logit] of top) {
      const [was, is] = [Number(logit), Number(said(taken.asked[t]?.get(word) ?? NaN))];
      if (Number.isFinite(was)) reference += was * was;
      if (!Object.is(was, is)) difference += (was - is) ** 2;
    }
  }
  const changes = recorded.norms.map((norm, i) => {
    const [was, is] = [Number(norm), Number(now.norms[i])];
    return Object.is(was, is) ? 0 : Math.abs(was - is) / Math.abs(was);
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
