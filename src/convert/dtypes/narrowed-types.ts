/**
 * The types that widened tensors get back. Some software reads vectors as F32 only, whatever their type was at the source; on
 * the way to other software each one returns to its own type, which loses no bit.
 */
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { countOf, type FloatDType } from "../../core/dtype.ts";
import { extentsOf, Sources } from "../../core/read.ts";
import { type ExpectedTensor, leafRoles, tensorsHeld } from "../../families/expand.ts";
import type { MatchedModel } from "../../families/model.ts";
import { decideRole, type Policy } from "../../quantization/policy.ts";

/** Elements that are read at a time. */
const PART_ELEMENTS = 1 << 20;

/**
 * @param stored tensors of the destination
 * @returns the new type of each role that was widened. It is the type that the source has noted; without a note it is BF16,
 *   if the token table becomes BF16 and every value is a number of BF16
 */
export async function findNarrowedTypes(
  source: MatchedModel,
  stored: readonly ExpectedTensor[],
  policy: Policy,
): Promise<ReadonlyMap<string, FloatDType>> {
  const found = new Map<string, FloatDType>();
  const candidates = wideTensors(source, stored);
  if (candidates.size === 0 || policy.to === "F32") return found;
  const { widened } = source.checkpoint;
  const main = mainType(source, policy);
  await using sources = new Sources(source.checkpoint.store);
  for (const [role, tensor] of candidates) {
    const noted = widened?.get(tensorKey(tensor));
    if (noted !== undefined) found.set(role, noted);
    else if (widened === undefined && main === "BF16" && (await holdsBf16(tensor, sources)))
      found.set(role, "BF16");
  }
  return found;
}

/** Roles that the source's dialect stores as F32 only, and the destination in any type. */
function wideTensors(source: MatchedModel, stored: readonly ExpectedTensor[]): ReadonlyMap<string, Tensor> {
  const required = new Set(
    stored.filter(({ onlyDtype }) => onlyDtype !== undefined).flatMap(({ layout }) => leafRoles(layout)),
  );
  const wide = new Map<string, Tensor>();
  for (const { name, onlyDtype, keepsDtype, layout } of tensorsHeld(source)) {
    const isUsual = keepsDtype === true && source.checkpoint.widened === undefined;
    if (onlyDtype === undefined || isUsual) continue;
    for (const role of leafRoles(layout)) if (!required.has(role)) wide.set(role, source.tensors.get(name)!);
  }
  return wide;
}

/** The type that the token table gets. */
function mainType(source: MatchedModel, policy: Policy): string | undefined {
  const role = [...source.roles.values()].find(({ spec }) => spec.kind === "embedding");
  if (role === undefined) return undefined;
  const { dtype } = source.tensors.get(source.roleSources.get(role.key)![0]!.of!)!;
  const { to } = decideRole(role, dtype, policy, source);
  return to === "keep" ? dtype : to;
}

/** Whether the low half of every F32 is zero, so that a cut to BF16 keeps the value. */
async function holdsBf16(tensor: Tensor, sources: Sources): Promise<boolean> {
  if (tensor.dtype !== "F32") return false;
  const count = countOf(tensor.shape);
  for (let lo = 0; lo < count; lo += PART_ELEMENTS) {
    const hi = Math.min(count, lo + PART_ELEMENTS);
    const bytes = new Uint8Array(4 * (hi - lo));
    await sources.read(extentsOf(tensor, lo, hi), bytes);
    for (let i = 0; i < bytes.length; i += 4) if (bytes[i] !== 0 || bytes[i + 1] !== 0) return false;
  }
  return true;
}
