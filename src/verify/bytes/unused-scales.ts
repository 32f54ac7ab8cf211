/** Compares scales of activations and caches, which belong to no role. */

import { isSameForm, type LoadedModel, storedRole } from "../../checkpoint/load.ts";
import { isCacheScale } from "../../checkpoint/scales/names.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf } from "../../core/dtype.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { canonicalJson } from "../../core/hash.ts";
import { isJsonObject } from "../../core/json.ts";
import { publishedName } from "../../families/expand.ts";
import type { Role } from "../../families/model.ts";
import { type ComparedItem, comparedTensor, type RoleDifference } from "./compared-items.ts";

/**
 * Compares scales of activations and caches, which no role and no forward pass reads. Scales on both sides must have the
 * same bits. A recast, and a new description of quantized weights, may remove or add scales.
 *
 * @param strict the destination was written by this version
 * @returns pairs whose bits are still to be compared, and the differences and findings so far
 */
export function compareUnusedScales(a: LoadedModel, b: LoadedModel, strict: boolean) {
  const both: { item: ComparedItem; left: Tensor; right: Tensor }[] = [];
  const differences: RoleDifference[] = [];
  const alone = { first: [] as string[], second: [] as string[] };
  const recast = (role: Role) => !isSameForm(storedRole(a, role), storedRole(b, role));
  const anyRecast = [...a.roles.values()].some(recast);
  const isDescribedAnew = strict && declarationOf(a) !== declarationOf(b);
  const [namesA, namesB] = [unusedNames(a), unusedNames(b)];
  for (const key of [...new Set([...namesA.keys(), ...namesB.keys()])].sort()) {
    const [nameA, nameB] = [namesA.get(key) ?? key, namesB.get(key) ?? key];
    const [left, right] = [a.tensors.get(nameA), b.tensors.get(nameB)];
    const [side, name] = left === undefined ? [b, nameB] : [a, nameA];
    const role = nearestRole(name, side);
    const differs = (message: string) => differences.push({ role, key, tensors: [key], message });
    if (left === undefined || right === undefined) {
      const which = left === undefined ? "second" : "first";
      const isAdded = strict && which === "second"; // this version adds the scales that it describes
      const isAllowed = isAdded
        ? isCacheScale(key)
          ? declaresCache(b)
          : isDescribedAnew || (role !== null && recast(role))
        : anyRecast || isDescribedAnew;
      if (isAllowed) alone[which].push(key);
      else differs(`it is only in the ${which} checkpoint`);
    } else if (left.dtype !== right.dtype || countOf(left.shape) !== countOf(right.shape)) {
      differs(`it is ${typeOf(right)}, not ${typeOf(left)}`);
    } else {
      const item = {
        key,
        role,
        shape: left.shape,
        leaf: false,
        isRecast: false,
        a: comparedTensor(left),
        b: comparedTensor(right),
      };
      both.push({ item, left, right });
    }
  }
  const findings = Object.entries(alone).flatMap(([which, keys]) => aloneFindings(which, keys, strict));
  return { both, differences, findings };
}

/**
 * A finding for all scales that only one checkpoint has. What this version leaves out or adds, it has reported before; scales
 * that another tool calibrated for its recast contradict nothing.
 */
function aloneFindings(which: string, keys: readonly string[], strict: boolean): readonly Finding[] {
  const [first, ...others] = keys;
  if (first === undefined) return [];
  const named = others.length === 0 ? `${first} is` : `${first} and ${others.length} more are`;
  const message = `${named} only in the ${which} checkpoint`;
  const at = { tensor: first };
  return [
    strict || which === "second"
      ? remark("activation-scale-left", message, at)
      : difference("activation-scale-absent", message, at),
  ];
}

/** Whether config.json declares an FP8 KV cache. The method `fp8` cannot declare it: engines are asked for such a cache. */
function declaresCache({ checkpoint }: LoadedModel): boolean {
  const declared = checkpoint.config.quantization_config;
  if (!isJsonObject(declared)) return false;
  return declared.quant_method === "fp8" || isJsonObject(declared.kv_cache_scheme);
}

/** The quantization that config.json declares, as text. */
function declarationOf({ checkpoint }: LoadedModel): string {
  return canonicalJson(checkpoint.config.quantization_config ?? null);
}

/** Name that the dialect writes -> stored name; a library may store a tensor under another name, as Transformers `activation_scale`. */
function unusedNames({ scales, dialect }: LoadedModel): ReadonlyMap<string, string> {
  const keyOf = (name: string) => publishedName(name, dialect).replace(/\.activation_scale$/, ".input_scale");
  return new Map(scales.unusedScales.map((name) => [keyOf(name), name]));
}

/** The role of the weight that owns a scale, else of the first weight with the longest common name prefix. */
function nearestRole(scale: string, { holds, roles, scales }: LoadedModel): Role | null {
  const owner = scales.ownerOf.get(scale);
  const names = owner === undefined ? [...holds.keys()] : [owner];
  for (let prefix = scale; prefix.includes("."); ) {
    prefix = prefix.slice(0, prefix.lastIndexOf("."));
    const name = names.find((candidate) => candidate.startsWith(`${prefix}.`));
    if (name !== undefined) return roles.get(holds.get(name)?.[0] ?? "") ?? null;
  }
  return null;
}

function typeOf({ dtype, shape }: Tensor): string {
  return `${dtype} [${shape.join(", ")}]`;
}
