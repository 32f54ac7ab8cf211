/** Scales of activations and caches: the bytes rung compares them beside the roles, none of which they belong to. */

import { type LoadedModel, storedRole } from "../../checkpoint/load.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf } from "../../core/dtype.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { publishedName } from "../../families/expand.ts";
import type { Role } from "../../families/model.ts";
import { type ComparedItem, comparedTensor, type RoleDifference } from "./compared-items.ts";

/**
 * Scales of activations and caches, which no role and no forward pass reads. What is on both sides must be the
 * same bits. A recast may lose or bring some; our own keeps those whose weight keeps its type.
 */
export function compareUnusedScales(a: LoadedModel, b: LoadedModel, own: boolean) {
  const both: { item: ComparedItem; left: Tensor; right: Tensor }[] = [];
  const differences: RoleDifference[] = [];
  const findings: Finding[] = [];
  const recast = (role: Role) => storedRole(a, role).dtype !== storedRole(b, role).dtype;
  const anyRecast = [...a.roles.values()].some(recast);
  const [namesA, namesB] = [unreadNames(a), unreadNames(b)];
  for (const key of [...new Set([...namesA.keys(), ...namesB.keys()])].sort()) {
    const [nameA, nameB] = [namesA.get(key) ?? key, namesB.get(key) ?? key];
    const [left, right] = [a.tensors.get(nameA), b.tensors.get(nameB)];
    const [side, name] = left === undefined ? [b, nameB] : [a, nameA];
    const role = besides(name, side);
    const differs = (message: string) => differences.push({ role, key, tensors: [key], message });
    if (left === undefined || right === undefined) {
      const message = `is only in the ${left === undefined ? "second" : "first"} checkpoint`;
      const owned = side.scales.ownerOf.has(name);
      const at = { tensor: name };
      if (own && owned && role !== null && recast(role)) {
        findings.push(remark("activation-scale-left", `${key} ${message}`, at));
      } else if (!own && anyRecast) {
        findings.push(difference("activation-scale-absent", `${key} ${message}`, at));
      } else differs(`it ${message}`);
    } else if (left.dtype !== right.dtype || countOf(left.shape) !== countOf(right.shape)) {
      differs(`it is ${described(right)}, not ${described(left)}`);
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

/** By the name that the dialect writes, for a library may spell it otherwise: the name that is stored. */
function unreadNames({ scales, dialect }: LoadedModel): ReadonlyMap<string, string> {
  return new Map(scales.unusedScales.map((name) => [publishedName(name, dialect), name]));
}

/** The role of the weight that a scale belongs to, or of the first one whose name is nearest to its own. */
function besides(scale: string, { holds, roles, scales }: LoadedModel): Role | null {
  const owner = scales.ownerOf.get(scale);
  const names = owner === undefined ? [...holds.keys()] : [owner];
  for (let prefix = scale; prefix.includes("."); ) {
    prefix = prefix.slice(0, prefix.lastIndexOf("."));
    const name = names.find((one) => one.startsWith(`${prefix}.`));
    if (name !== undefined) return roles.get(holds.get(name)?.[0] ?? "") ?? null;
  }
  return null;
}

function described({ dtype, shape }: Tensor): string {
  return `${dtype} [${shape.join(", ")}]`;
}
