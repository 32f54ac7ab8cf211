/**
 * What both sides' config.json says of quantised weights and of types, by the rules of `check`. What is wrong in the
 * destination alone makes engines load another model; what both sides have in common came with the source.
 */

import {
  type DeclaredQuantization,
  declaredQuantization,
  MODELOPT_CONFIG,
} from "../../checkpoint/declared-quantization.ts";
import type { LoadedModel } from "../../checkpoint/load.ts";
import type { ScaleTable } from "../../checkpoint/scales.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { canonicalJson } from "../../core/hash.ts";
import { isJsonObject } from "../../core/json.ts";
import { Sources } from "../../core/read.ts";
import {
  dtypeFaults,
  type QuantizationFault,
  quantizationFaults,
  scaleFaults,
} from "../../quantization/rules.ts";

export interface QuantizationComparison {
  readonly differences: readonly string[];
  readonly findings: readonly Finding[];
  /** why the destination's config could not be judged; null where it was */
  readonly unjudged: string | null;
}

const CONFIG = "config.json";

export async function compareQuantization(a: LoadedModel, b: LoadedModel): Promise<QuantizationComparison> {
  const [before, after] = [await faultsOf(a), await faultsOf(b)];
  const isInherited = ({ rule, tensor }: QuantizationFault) =>
    before.some((one) => one.rule === rule && one.tensor === tensor) ||
    // a scale that nothing declares any more came along from the source: told, and engines say so
    (rule === "activation-scale-undeclared" && a.tensors.has(tensor!));
  const inherited = after.filter(isInherited);
  const own = after.filter((one) => !isInherited(one));
  const untried = own.find(({ rule }) => rule === "quantization-unchecked");
  return {
    differences: toldOnce(own.filter(({ severity }) => severity === "error")).map(({ text }) => text),
    findings: [
      ...toldOnce(own.filter(({ severity }) => severity === "warning")).map(({ rule, text }) =>
        difference(rule, text, { file: CONFIG }),
      ),
      ...toldOnce(inherited).map(({ rule, text }) =>
        remark(rule, `${text}, as in the source`, { file: CONFIG }),
      ),
      ...toldOnce(before.filter((one) => !after.some(({ rule }) => rule === one.rule))).map(
        ({ rule, text }) => remark(rule, `in the source, ${text}`, { file: CONFIG }),
      ),
      ...cacheFindings(a, b),
      ...(untried === undefined ? [] : [remark(untried.rule, untried.message, { file: CONFIG })]),
    ],
    unjudged: untried?.message ?? null,
  };
}

/** Engines round keys and values to the type that this names; a recast of weights does not ask for it. */
function cacheFindings(a: LoadedModel, b: LoadedModel): readonly Finding[] {
  const [before, after] = [a, b].map(({ checkpoint }) => {
    const said = checkpoint.config.quantization_config;
    return isJsonObject(said) ? (said.kv_cache_scheme ?? null) : null;
  });
  if (after === null || canonicalJson(before!) === canonicalJson(after!)) return [];
  const message = `${CONFIG}: kv_cache_scheme is ${canonicalJson(after!)}, which the first checkpoint does not say: engines keep keys and values in another type`;
  return [difference("kv-cache-type", message, { file: CONFIG })];
}

/** Other formats say nothing of the kind: what they hold, they hold in full. */
async function faultsOf({ checkpoint, scales }: LoadedModel): Promise<readonly QuantizationFault[]> {
  if (checkpoint.format !== "hf" && checkpoint.format !== "packed") return [];
  await using files = new Sources(checkpoint.store);
  const { tensors } = checkpoint;
  const declared = await declaredQuantization(checkpoint);
  const config =
    declared === null ? checkpoint.config : { ...checkpoint.config, quantization_config: declared.said };
  return [
    ...quantizationFaults({ config, tensors }, scales),
    ...(await besideFaults(checkpoint, scales, declared)),
    ...dtypeFaults(checkpoint),
    // a weight's scale is held to the weight by the bytes rung
    ...(await scaleFaults(checkpoint, { scaleOf: new Map(), unusedScales: scales.unusedScales }, files)),
  ];
}

/** ModelOpt's file beside a config.json that declares on its own: TensorRT-LLM reads the file, and other engines the config. */
async function besideFaults(
  checkpoint: Checkpoint,
  pairs: ScaleTable,
  declared: DeclaredQuantization | null,
): Promise<readonly QuantizationFault[]> {
  if (declared?.file !== CONFIG) return [];
  const { quantization_config: _, ...plain } = checkpoint.config;
  const { said } = (await declaredQuantization({ ...checkpoint, config: plain })) ?? {};
  if (said === undefined) return [];
  const config = { ...plain, quantization_config: said };
  const faults = quantizationFaults({ config, tensors: checkpoint.tensors }, pairs);
  return faults
    .filter(({ severity }) => severity === "error")
    .map((fault) => ({
      ...fault,
      rule: "quantization-beside",
      severity: "warning",
      message: `by ${MODELOPT_CONFIG}, ${fault.message}`,
    }));
}

/** A rule with its first case, and how many more there are. */
function toldOnce(
  faults: readonly QuantizationFault[],
): readonly { readonly rule: string; readonly text: string }[] {
  return [...new Set(faults.map(({ rule }) => rule))].map((rule) => {
    const all = faults.filter((one) => one.rule === rule);
    const [{ tensor, message }] = all as [QuantizationFault, ...QuantizationFault[]]; // each rule is one of them
    const where = tensor === null ? CONFIG : `${CONFIG} and ${tensor}`;
    const more = all.length > 1 ? ` (and ${all.length - 1} more)` : "";
    return { rule, text: `${where}: ${message}${more}` };
  });
}
