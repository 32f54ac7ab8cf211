/**
 * Limits of a recast's quality, and of the wiring. Default limits are judged on weights that look trained, and only
 * reported elsewhere: random weights answer an honest rounding with any drift. A limit that the user gives is always
 * judged.
 * @see docs/verification.md for where the numbers come from
 */

import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import type { FloatDType } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import type { LogitsSummary } from "./metrics.ts";

/** Quality limits of a recast; they never widen tensor invariants or the wiring bound. */
export interface LimitOptions {
  /** a YAML file of these */
  readonly tolerance?: string;
  /** mean KL divergence, nats */
  readonly kl?: number;
  /** its 99th percentile over positions; ten times `kl` where only that is given */
  readonly klP99?: number;
  /** fraction of positions, 0 to 1 */
  readonly top1?: number;
}

export interface Limits {
  /** mean and 99th percentile over positions of KL(source || destination), nats */
  readonly klMean: number;
  readonly klP99: number;
  /** least share of positions whose best token agrees */
  readonly top1: number;
}

/** Nothing recast, or widened exactly: the same bits. */
const SAME: Limits = { klMean: 0, klP99: 0, top1: 1 };

/** By what is written. F32 written from FP8 rounds code x scale once, where a forward pass scales the sum. */
const BY_DTYPE: Readonly<Record<FloatDType, Limits>> = {
  F32: { klMean: 1e-6, klP99: 1e-5, top1: 1 },
  F16: { klMean: 1e-3, klP99: 1e-2, top1: 0.98 },
  BF16: { klMean: 1e-3, klP99: 1e-2, top1: 0.98 },
  F8_E4M3: { klMean: 1e-2, klP99: 1e-1, top1: 0.97 },
  F8_E5M2: { klMean: 3e-2, klP99: 3e-1, top1: 0.95 },
};

/** The widest limits among the dtypes that a recast wrote, with the user's own in their place. */
export function limitsFor(recastTo: ReadonlySet<FloatDType>, { kl, klP99, top1 }: LimitOptions): Limits {
  if (recastTo.size === 0) return SAME;
  const limits = [...recastTo]
    .map((dtype) => BY_DTYPE[dtype])
    .reduce((a, b) => (a.klMean >= b.klMean ? a : b));
  return {
    klMean: kl ?? limits.klMean,
    klP99: klP99 ?? (kl === undefined ? limits.klP99 : 10 * kl),
    top1: top1 ?? limits.top1,
  };
}

/** Below this share of ln(vocab), the reference's own loss says that it predicts these tokens. */
const TRAINED_SHARE = 0.75;
/** Fewer tokens cannot tell. */
const TRAINED_TOKENS = 16;

/** Whether these tokens are text that these weights were trained on, so that drift means something. */
export function looksTrained({ nllA }: LogitsSummary, tokens: number, vocab: number): boolean {
  return tokens >= TRAINED_TOKENS && nllA < TRAINED_SHARE * Math.log(vocab);
}

/** Measures of quality that a limit can be set on. */
export type Quality = Pick<LogitsSummary, "klMean" | "klP99" | "top1">;

/** The limits that the user gave, by the measure that each one limits; a tolerance file was read before. */
export function givenLimits({ kl, klP99, top1 }: LimitOptions): Partial<Limits> {
  return {
    ...(kl !== undefined && { klMean: kl }),
    ...(klP99 !== undefined && { klP99 }),
    ...(top1 !== undefined && { top1 }),
  };
}

/** The measures that exceed their limit, as phrases; a NaN exceeds any limit. */
export function excesses(quality: Quality, limits: Partial<Limits>): readonly string[] {
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

/** No looser wiring bound is ever derived. */
const MAX_WIRING = 1e-5;

/**
 * Largest relative L2 between two runs of the same numbers whose sums over `terms` products may be ordered
 * differently; zero where both sides sum in one order, as two sides of one dialect do on one backend.
 */
export function wiringLimit(sameOrder: boolean, terms: number): number {
  return sameOrder ? 0 : Math.min(MAX_WIRING, terms * 2 ** -24);
}

/** The limits that options ask for; what they give themselves wins over the file. @throws USAGE, NOT_FOUND */
export async function readLimits<T extends LimitOptions>(options: T): Promise<T> {
  const { tolerance: file } = options;
  if (file === undefined) return options;
  const text = await readFile(file, "utf8").catch((cause) => {
    throw systemError(cause, { file });
  });
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 });
  } catch (cause) {
    throw new IsologitError("USAGE", `it is no YAML: ${(cause as Error).message}`, { file }, { cause });
  }
  const parsed = Schema.safeParse(value);
  if (parsed.success) return { ...parsed.data, ...options };
  const { path, message } = parsed.error.issues[0]!;
  throw new IsologitError("USAGE", [path.join("."), message].filter(Boolean).join(": "), { file });
}

const nats = z.number().nonnegative();

export const Schema = z.strictObject({
  kl: nats.exactOptional(),
  klP99: nats.exactOptional(),
  top1: z.number().min(0).max(1).exactOptional(),
});
