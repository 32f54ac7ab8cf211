/** Compares scales of activations and caches, which belong to no role. */

import { type LoadedModel, storedRole } from "../../checkpoint/load.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf } from "../../core/dtype.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { publishedName } from "../../families/expand.ts";
import type { Role } from "../../families/model.ts";
import { type ComparedItem, comparedTensor, type RoleDifference } from "./compared-items.ts";

/**
 * Compares scales of activations and caches, which no role and no forward pass reads. Scales on both sides must have the
 * same bits. A recast by another tool may remove or add scales; a conversion by this version keeps the scale of every
 * weight that keeps its dtype.
 *
 * @param strict the destination was written by this version
 * @returns pairs whose bits are still to be compared, and the differences and findings so far
 */
export function compareUnusedScales(a: LoadedModel, b: LoadedModel, strict: boolean) {
  const both: { item: ComparedItem; left: Tensor; right: Tensor }[] = [];
  const differences: RoleDifference[] = [];
  const findings: Finding[] = [];
  const recast = (role: Role) => storedRole(a, role).dtype !== storedRole(b, role).dtype;
  const anyRecast = [...a.roles.values()].some(recast);
  const [namesA, namesB] = [unusedNames(a), unusedNames(b)];
  for (const key of [...new Set([...namesA.keys(), ...namesB.keys()])].sort()) {
    const [nameA, nameB] = [namesA.get(key) ?? key, namesB.get(key) ?? key];
    const [left, right] = [a.tensors.get(nameA), b.tensors.get(nameB)];
    const [side, name] = left === undefined ? [b, nameB] : [a, nameA];
    const role = nearestRole(name, side);
    const differs = (message: string) => differences.push({ role, key, tensors: [key], message });
    if (left === undefined || right === undefined) {
      const message = `is only in the ${left === undefined ? "second" : "first"} checkpoint`;
      const owned = side.scales.ownerOf.has(name);
      const at = { tensor: name };
      if (strict && owned && role !== null && recast(role)) {
        findings.push(remark("activation-scale-left", `${key} ${message}`, at));
      } else if (!strict && anyRecast) {
        findings.push(difference("activation-scale-absent", `${key} ${message}`, at));
      } else differs(`it ${message}`);
    } else if (left.dtype !== right.dtype || countOf(left.shape) !== countOf(right.shape)) {
      differs(`it is ${typeOf(right)}, not ${typeOf(left)}`);
    } else {
      const item = {
        key,
        role,
        shape: left.shape,
        leaf: false,
        a: comparedTensor(left),
        b: comparedTensor(right),
      };
      both.push({ item, left, right });
    }
  }
  return { both, differences, findings };
}

/** Name that the dialect writes -> stored name; a library may store a tensor under another name. */
function unusedNames({ scales, dialect }: LoadedModel): ReadonlyMap<string, string> {
  return new Map(scales.unusedScales.map((name) => [publishedName(name, dialect), name]));
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
