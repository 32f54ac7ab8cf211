/** The tensors of a destination that hold roles: their names, the stored tensors that they come from, their new dtypes. */
import type { Writer } from "../../formats/format.ts";
import type { Tensor } from "../core/checkpoint.ts";
import type { DType, FloatDType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Dialect } from "../families/dialect.ts";
import { type ExpectedTensor, leafRoles, tensorsHeld, tensorsWritten } from "../families/expand.ts";
import type { MatchedModel, Role } from "../families/model.ts";
import type { Parallelism } from "../families/structure.ts";
import { decideRole, type Policy } from "../quantization/policy.ts";
import type { PlanOptions } from "./options.ts";

/** One tensor of the destination that holds roles. */
export interface PlannedWeight extends ExpectedTensor {
  /** its role, or the first of the roles that it joins */
  readonly role: Role;
  /** the stored tensors that it is made from; all have one dtype */
  readonly from: readonly Tensor[];
  readonly sourceDtype: DType;
  /** in the destination */
  readonly dtype: DType;
  /** the dtype that it is cast to; null: its bits are copied */
  readonly cast: FloatDType | null;
  /** the reason for that, in words */
  readonly why: string;
}

/**
 * The tensors of the destination with their names. Into and out of a packed file, tensors keep the names of the source, so
 * that the way back gives the same bytes; a recast keeps them if the source has each name. Else names are those of the
 * published models.
 */
export function chooseNames(
  source: MatchedModel,
  dialect: Dialect,
  writer: Writer,
  policy: Policy,
  options: PlanOptions,
  parallelism: Parallelism,
): readonly ExpectedTensor[] {
  const published = tensorsWritten(source, dialect, parallelism);
  const packed = source.checkpoint.format === "packed" || writer.container === "file";
  const isCut = source.takenRows !== undefined; // its tensors are not those that the source names
  if (!packed || isCut || dialect.id !== source.dialect.id || options.maxShardBytes !== undefined)
    return published;
  if (policy.to === null) return tensorsHeld(source);
  const sameNames = published.map((tensor) => {
    const name = [tensor.name, ...tensor.also].find((candidate) => source.tensors.has(candidate));
    return name === undefined ? undefined : { ...tensor, name };
  });
  return sameNames.every((tensor) => tensor !== undefined) ? sameNames : published;
}

/** @throws PLAN_IMPOSSIBLE if the stored tensors of one destination tensor have different types */
export function planWeights(
  source: MatchedModel,
  policy: Policy,
  stored: readonly ExpectedTensor[],
): readonly PlannedWeight[] {
  return stored.map((expected) => {
    const from = sourceTensors(source, expected);
    const sourceDtype = from[0]!.dtype;
    const role = source.roles.get(leafRoles(expected.layout)[0]!)!;
    const { to, why } = decideRole(role, sourceDtype, policy, source);
    const cast = to === "keep" ? null : to;
    return { ...expected, role, from, sourceDtype, dtype: cast ?? sourceDtype, cast, why };
  });
}

function sourceTensors(source: MatchedModel, { name, layout }: ExpectedTensor): readonly Tensor[] {
  const names = new Set(
    leafRoles(layout).flatMap((role) => (source.roleSources.get(role) ?? []).map((move) => move.of!)),
  );
  const tensors = [...names].map((n) => source.tensors.get(n)!);
  const other = tensors.find((tensor) => tensor.dtype !== tensors[0]!.dtype);
  if (other !== undefined) {
    const message = `it joins ${tensors[0]!.name} (${tensors[0]!.dtype}) and ${other.name} (${other.dtype})`;
    throw new IsologitError(
      "PLAN_IMPOSSIBLE",
      message,
      { tensor: name },
      { next: "make them one type with `dtype`" },
    );
  }
  return tensors;
}
