/** The tensors of a destination that hold roles: their names, the stored tensors that they come from, their new dtypes. */
import type { TypeChoice, Writer } from "../../formats/format.ts";
import type { Tensor } from "../core/checkpoint.ts";
import {
  type CastDType,
  type DType,
  type FloatDType,
  isBlockDType,
  isBlockTarget,
  isDecodedBlock,
  isFloat,
} from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { shapeOf } from "../core/mapping/layout.ts";
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
  readonly cast: CastDType | null;
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
  const isSame = writer.inlinesFiles === true; // parts hold the tensors of the one file, in its order
  const isCut = source.takenRows !== undefined; // its tensors are not those that the source names
  const keepsNames = isSame || (packed && options.maxShardBytes === undefined);
  if (!keepsNames || isCut || dialect.id !== source.dialect.id) return published;
  if (policy.to === null) return tensorsHeld(source);
  const sameNames = published.map((tensor) => {
    const name = [tensor.name, ...tensor.also].find((candidate) => source.tensors.has(candidate));
    return name === undefined ? undefined : { ...tensor, name };
  });
  return sameNames.every((tensor) => tensor !== undefined) ? sameNames : published;
}

/**
 * @param narrowed result of `findNarrowedTypes`
 * @param choices  the types of a kind of file or a recipe, by the names of `stored`; null: the policy decides
 * @throws PLAN_IMPOSSIBLE if the stored tensors of one destination tensor have different types
 */
export function planWeights(
  source: MatchedModel,
  policy: Policy,
  stored: readonly ExpectedTensor[],
  narrowed: ReadonlyMap<string, FloatDType>,
  choices: ReadonlyMap<string, TypeChoice> | null,
): readonly PlannedWeight[] {
  return stored.map((expected) => {
    const from = sourceTensors(source, expected, policy.to !== null);
    const sourceDtype = from[0]!.dtype;
    const role = source.roles.get(leafRoles(expected.layout)[0]!)!;
    const choice = choices?.get(expected.name);
    const { to, why } =
      choice === undefined
        ? decideTensor(expected, role, sourceDtype, policy, source, narrowed.get(role.key))
        : decideByKind(expected, role, sourceDtype, policy, source, choice);
    const cast = to === "keep" || to === sourceDtype ? null : to;
    return { ...expected, role, from, sourceDtype, dtype: cast ?? sourceDtype, cast, why };
  });
}

/** The policy's decision, unless the destination's software reads one type only, or the tensor returns to its own type. */
function decideTensor(
  { onlyDtype }: ExpectedTensor,
  role: Role,
  sourceDtype: DType,
  policy: Policy,
  source: MatchedModel,
  narrowed: FloatDType | undefined,
): ReturnType<typeof decideRole> {
  const decision = decideRole(role, sourceDtype, policy, source);
  if (onlyDtype !== undefined) return { to: onlyDtype, why: `its software reads it as ${onlyDtype} only` };
  if (narrowed === undefined || decision.to !== "keep") return decision;
  return { to: narrowed, why: `it was widened, and every value is a number of ${narrowed}` };
}

/** The type that a kind of file or a recipe chooses, with the reason. */
function decideByKind(
  { name, onlyDtype, layout }: ExpectedTensor,
  role: Role,
  sourceDtype: DType,
  policy: Policy,
  source: MatchedModel,
  { dtype, instead }: TypeChoice,
): ReturnType<typeof decideRole> {
  if (onlyDtype !== undefined) return { to: onlyDtype, why: `its software reads it as ${onlyDtype} only` };
  if (!isFloat(dtype) && !isBlockTarget(dtype))
    throw new IsologitError("INTERNAL", `${dtype} is not written`);
  const decision = decideRole(role, sourceDtype, { to: dtype, recipe: null }, source);
  if (decision.to === "keep" && sourceDtype !== dtype && isBlockDType(sourceDtype)) {
    const message = `it is ${sourceDtype}, whose values are not decoded`;
    throw new IsologitError("UNSUPPORTED", message, { tensor: name });
  }
  if (decision.to === "keep") return decision;
  const rule = policy.recipe === null ? policy.kind : `recipe ${policy.recipe.id}`;
  if (instead === undefined) return { ...decision, why: `${rule} makes it ${dtype}` };
  const row = shapeOf(layout).at(-1);
  return { ...decision, why: `${rule}, but rows of ${row} are no whole blocks of ${instead}` };
}

/** @param isCast the tensors are cast: then quantised types of ggml are decoded to F32 first */
function sourceTensors(
  source: MatchedModel,
  { name, layout }: ExpectedTensor,
  isCast: boolean,
): readonly Tensor[] {
  const names = new Set(
    leafRoles(layout).flatMap((role) => (source.roleSources.get(role) ?? []).map((move) => move.of!)),
  );
  const tensors = [...names].map((n) => source.tensors.get(n)!);
  const valueType = ({ dtype }: Tensor): DType => (isCast && isDecodedBlock(dtype) ? "F32" : dtype);
  const other = tensors.find((tensor) => valueType(tensor) !== valueType(tensors[0]!));
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
