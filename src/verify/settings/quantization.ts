/**
 * Checks what config.json of both sides declares about quantized weights and dtypes, with the rules of `check`. A fault
 * of the destination alone makes engines load another model; a fault of both sides was already in the source.
 */

import {
  type DeclaredQuantization,
  declaredQuantization,
  declaredQuantizations,
} from "../../checkpoint/declared-quantization.ts";
import type { LoadedModel } from "../../checkpoint/load.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { isJsonObject } from "../../core/json.ts";
import { Sources } from "../../core/read.ts";
import { dtypeFaults } from "../../quantization/rules/dtype.ts";
import type { QuantizationFault } from "../../quantization/rules/fault.ts";
import { quantizationFaults } from "../../quantization/rules/quantization.ts";
import { scaleFaults } from "../../quantization/rules/scales.ts";

interface QuantizationComparison {
  readonly differences: readonly string[];
  readonly findings: readonly Finding[];
  /** why the destination's config could not be judged; null where it could */
  readonly unjudged: string | null;
}

const CONFIG = "config.json";

/**
 * Compares the faults of the destination's declared quantization with those of the source.
 *
 * @param strict the destination was written by this version
 */
export async function compareQuantization(
  a: LoadedModel,
  b: LoadedModel,
  strict: boolean,
): Promise<QuantizationComparison> {
  const [before, after] = [await faultsOf(a), await faultsOf(b)];
  const isInherited = ({ rule, tensor }: QuantizationFault) =>
    before.some((fault) => fault.rule === rule && fault.tensor === tensor) ||
    // a scale that no config declares any more was copied from the source: a remark is enough, engines report it too
    (rule === "activation-scale-undeclared" && a.tensors.has(tensor!));
  const inherited = after.filter(isInherited);
  const added = after.filter((fault) => !isInherited(fault));
  const unchecked = added.find(({ rule }) => rule === "quantization-unchecked");
  return {
    differences: summarizeByRule(added.filter(({ severity }) => severity === "error")).map(
      ({ text }) => text,
    ),
    findings: [
      ...summarizeByRule(added.filter(({ severity }) => severity === "warning")).map(({ rule, text }) =>
        difference(rule, text, { file: CONFIG }),
      ),
      ...summarizeByRule(inherited).map(({ rule, text }) =>
        remark(rule, `${text}, as in the source`, { file: CONFIG }),
      ),
      ...summarizeByRule(before.filter((fault) => !after.some(({ rule }) => rule === fault.rule))).map(
        ({ rule, text }) => remark(rule, `in the source, ${text}`, { file: CONFIG }),
      ),
      ...cacheFindings(
        await declaredQuantization(a.checkpoint),
        await declaredQuantization(b.checkpoint),
        strict,
      ),
      ...(unchecked === undefined ? [] : [remark(unchecked.rule, unchecked.message, { file: CONFIG })]),
    ],
    unjudged: unchecked?.message ?? null,
  };
}

/**
 * Engines round keys and values to the dtype that a config names. A recast of weights does not need that; this version
 * declares such a dtype only where an option asked for it.
 */
function cacheFindings(
  before: DeclaredQuantization | null,
  after: DeclaredQuantization | null,
  strict: boolean,
): readonly Finding[] {
  const [given, found] = [cacheType(before), cacheType(after)];
  if (found === null || given === found) return [];
  const message = `${CONFIG}: the KV cache is ${found}, and the first checkpoint does not declare this: engines store keys and values in another dtype`;
  return [(strict ? remark : difference)("kv-cache-type", message, { file: CONFIG })];
}

/** The type of the KV cache that a config declares; the tools spell other fields of it differently. */
function cacheType(declared: DeclaredQuantization | null): string | null {
  const value = declared?.value;
  if (!isJsonObject(value)) return null;
  const { kv_cache_scheme: scheme, kv_cache_quant_algo: algorithm } = value;
  if (isJsonObject(scheme)) return `${scheme.num_bits ?? 8} bits of ${String(scheme.type ?? "float")}`;
  return algorithm === "FP8" ? "8 bits of float" : typeof algorithm === "string" ? algorithm : null;
}

/**
 * Faults of the declared quantization that concern a verdict. Other formats do not declare quantization: they store
 * unquantized weights. Notes, such as what one engine alone does not read, say nothing about the model.
 */
async function faultsOf({ checkpoint, scales, cutFrom }: LoadedModel): Promise<readonly QuantizationFault[]> {
  if (cutFrom !== undefined) {
    const faults = await faultsOf(cutFrom.source);
    return faults.flatMap((fault) => {
      if (fault.tensor === null) return [fault];
      const tensor = cutFrom.rename(fault.tensor);
      return tensor === null ? [] : [{ ...fault, tensor }];
    });
  }
  if (checkpoint.format !== "hf" && checkpoint.format !== "packed") return [];
  await using files = new Sources(checkpoint.store);
  const faults = [
    ...quantizationFaults(checkpoint, scales, await declaredQuantizations(checkpoint)),
    ...dtypeFaults(checkpoint),
    // the bytes rung checks the scales of weights
    ...(await scaleFaults(checkpoint, { scaleOf: new Map(), unusedScales: scales.unusedScales }, files)),
  ];
  return faults.filter(({ severity, rule }) => severity !== "note" || rule === "quantization-unchecked");
}

/** One text for each rule: the first fault, and the number of further faults. */
function summarizeByRule(
  faults: readonly QuantizationFault[],
): readonly { readonly rule: string; readonly text: string }[] {
  return [...new Set(faults.map(({ rule }) => rule))].map((rule) => {
    const all = faults.filter((fault) => fault.rule === rule);
    const [{ tensor, message, file }] = all as [QuantizationFault, ...QuantizationFault[]]; // each rule comes from a fault, so `all` is not empty
    const where = [file ?? CONFIG, tensor ?? []].flat().join(" and ");
    const more = all.length > 1 ? ` (and ${all.length - 1} more)` : "";
    return { rule, text: `${where}: ${message}${more}` };
  });
}
