/**
 * Limits of the quality of a recast, and of the wiring. Default limits are judged only where the weights look trained and
 * are otherwise only reported: with random weights, correct rounding may cause any drift. A limit from the user is always
 * judged.
 * @see docs/verification.md for where the numbers come from
 */

import { readFile } from "node:fs/promises";
import { z } from "zod";
import type { DType } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import type { LogitsSummary } from "./metrics.ts";

/** Quality limits of a recast. They do not change the comparison of tensors or the wiring limit. */
export interface LimitOptions {
  /** path of a YAML file with the other fields of this type */
  readonly tolerance?: string;
  /** limit of the mean KL divergence, nats */
  readonly kl?: number;
  /** limit of the 99th percentile over positions, nats; default ten times `kl` where only `kl` is given */
  readonly klP99?: number;
  /** smallest fraction of positions with the same best token, 0 to 1 */
  readonly top1?: number;
}

export interface Limits {
  /** mean over positions of KL(source || destination), nats */
  readonly klMean: number;
  /** 99th percentile over positions, nats */
  readonly klP99: number;
  /** smallest fraction of positions with the same best token, 0 to 1 */
  readonly top1: number;
}

/** Nothing is recast, so the logits must be equal. */
export const SAME: Limits = { klMean: 0, klP99: 0, top1: 1 };

function same(dtypes: readonly DType[], limits: Limits): Partial<Record<DType, Limits>> {
  return Object.fromEntries(dtypes.map((dtype) => [dtype, limits]));
}

/** By written dtype. F32 from FP8 rounds code x scale for each weight; the source's forward pass scales the sum instead. */
const BY_DTYPE: Readonly<Partial<Record<DType, Limits>>> = {
  F32: { klMean: 1e-6, klP99: 1e-5, top1: 1 },
  F16: { klMean: 1e-3, klP99: 1e-2, top1: 0.98 },
  BF16: { klMean: 1e-3, klP99: 1e-2, top1: 0.98 },
  F8_E4M3: { klMean: 1e-2, klP99: 1e-1, top1: 0.97 },
  F8_E5M2: { klMean: 3e-2, klP99: 3e-1, top1: 0.95 },
  // E2M1 has two bits of mantissa less than E4M3, so the relative error is four times and the divergence 16 times as large
  F4: { klMean: 1.6e-1, klP99: 1.6, top1: 0.88 },
  // Quantised types by the same rule, from their error on normally distributed weights: 0.005, 0.018, 0.04, 0.08, 0.15 and 0.3
  // relative L2 (E4M3 has 0.025). Not below the limits of BF16.
  Q8_0: { klMean: 1e-3, klP99: 1e-2, top1: 0.98 },
  Q6_K: { klMean: 5e-3, klP99: 5e-2, top1: 0.98 },
  ...same(["Q5_0", "Q5_1", "Q5_K"], { klMean: 3e-2, klP99: 3e-1, top1: 0.95 }),
  ...same(["Q4_0", "Q4_1", "Q4_K", "IQ4_NL", "IQ4_XS"], { klMean: 1.2e-1, klP99: 1.2, top1: 0.9 }),
  Q3_K: { klMean: 4e-1, klP99: 4, top1: 0.82 },
  Q2_K: { klMean: 1.5, klP99: 15, top1: 0.64 },
};

/**
 * The widest default limits among the written dtypes, replaced by the limits that the user gave.
 *
 * @param recastTo dtypes that the recast wrote; empty where nothing is recast
 */
export function limitsFor(recastTo: ReadonlySet<DType>, { kl, klP99, top1 }: LimitOptions): Limits {
  if (recastTo.size === 0) return SAME;
  const limits = [...recastTo]
    .map((dtype) => BY_DTYPE[dtype] ?? SAME)
    .reduce((a, b) => (a.klMean >= b.klMean ? a : b));
  return {
    klMean: kl ?? limits.klMean,
    klP99: klP99 ?? (kl === undefined ? limits.klP99 : 10 * kl),
    top1: top1 ?? limits.top1,
  };
}

/** A source whose loss is below this fraction of ln(vocab) predicts these tokens better than chance. */
const TRAINED_SHARE = 0.75;
/** With fewer tokens the loss does not show whether a model is trained. */
const TRAINED_TOKENS = 16;

/** Whether the weights look trained on text like these tokens, so that drift is a measure of quality. */
export function looksTrained({ nllA }: LogitsSummary, tokens: number, vocab: number): boolean {
  return tokens >= TRAINED_TOKENS && nllA < TRAINED_SHARE * Math.log(vocab);
}

/** Quality measures that have limits. */
export type Quality = Pick<LogitsSummary, "klMean" | "klP99" | "top1">;

/** The limits that the user gave, by measure; call `readLimits` before, for the tolerance file. */
export function givenLimits({ kl, klP99, top1 }: LimitOptions): Partial<Limits> {
  return {
    ...(kl !== undefined && { klMean: kl }),
    ...(klP99 !== undefined && { klP99 }),
    ...(top1 !== undefined && { top1 }),
  };
}

/** The limits by which a recast is judged: the defaults only where the weights look trained. */
export function judgedLimits(
  recastTo: ReadonlySet<DType>,
  isTrained: boolean,
  options: LimitOptions,
): Partial<Limits> {
  const given = givenLimits(options);
  return recastTo.size > 0 && isTrained ? { ...limitsFor(recastTo, options), ...given } : given;
}

/** One sentence for each measure that exceeds its limit; NaN exceeds every limit. */
export function limitExcesses(quality: Quality, limits: Partial<Limits>): readonly string[] {
  const { klMean = Infinity, klP99 = Infinity, top1 = 0 } = limits;
  const text = (name: string, found: number, limit: number) =>
    `${name} is ${found}, and its limit is ${limit}`;
  return [
    ...(quality.klMean <= klMean ? [] : [text("the mean KL divergence", quality.klMean, klMean)]),
    ...(quality.klP99 <= klP99
      ? []
      : [text("the 99th percentile of the KL divergence", quality.klP99, klP99)]),
    ...(quality.top1 >= top1 ? [] : [text("top-1 agreement", quality.top1, top1)]),
  ];
}

/** Upper bound of every wiring limit. */
const MAX_WIRING = 1e-5;

/**
 * Largest accepted relative L2 between two runs of the same numbers. Zero where both sides add in the same order and store the
 * same form of values, as two checkpoints of one dialect do on one backend; otherwise the rounding of a sum of `terms` products.
 */
export function wiringLimit(isAlike: boolean, terms: number): number {
  return isAlike ? 0 : Math.min(MAX_WIRING, terms * 2 ** -24);
}

/** Reads the tolerance file into the options; limits given directly win over the file. @throws USAGE, NOT_FOUND */
export async function readLimits<T extends LimitOptions>(options: T): Promise<T> {
  const { tolerance: file } = options;
  if (file === undefined) return options;
  const text = await readFile(file, "utf8").catch((cause) => {
    throw systemError(cause, { file });
  });
  const { parse } = await import("yaml");
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 });
  } catch (cause) {
    throw new IsologitError(
      "USAGE",
      `the file is not valid YAML: ${(cause as Error).message}`,
      { file },
      { cause },
    );
  }
  const parsed = FILE_SCHEMA.safeParse(value);
  if (parsed.success) return { ...parsed.data, ...options };
  const { path, message } = parsed.error.issues[0]!;
  throw new IsologitError("USAGE", [path.join("."), message].filter(Boolean).join(": "), { file });
}

const nats = z.number().nonnegative();

const FILE_SCHEMA = z.strictObject({
  kl: nats.exactOptional(),
  klP99: nats.exactOptional(),
  top1: z.number().min(0).max(1).exactOptional(),
});
