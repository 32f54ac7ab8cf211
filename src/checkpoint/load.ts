/** From a checkpoint to a model: every stored tensor accounted for by the family, and scales paired with their weights. */
import { formats as allFormats } from "../../formats/index.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import type { DType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { findSampledDifference } from "../core/first-difference.ts";
import { Sources } from "../core/read.ts";
import { families as allFamilies } from "../families/index.ts";
import { matchRoles, replicaError } from "../families/match.ts";
import type { Matched, Role } from "../families/model.ts";
import { isNearMiss, recognise } from "./near-misses/recognise.ts";
import type { RunOptions } from "./options.ts";
import { pairScales, readScales, type ScaleTable } from "./scales.ts";

export type LoadOptions = Pick<RunOptions, "families" | "formats">;

/** A checkpoint whose every tensor is accounted for by its family. */
export interface LoadedModel extends Matched {
  /** which stored tensor scales which, and which scales nothing reads */
  readonly scales: ScaleTable;
}

/** A loaded model together with the values of its scales: it can be compared and run. */
export interface ModelWithScales extends LoadedModel {
  /** stored tensor -> its scales, one for the whole tensor or one for each row */
  readonly scaleValues: ReadonlyMap<string, Float32Array>;
}

/**
 * Pairs scales and matches roles. Only names, types and shapes are used, so the checkpoint may be one that is planned.
 *
 * @throws SCALE_INVALID, UNSUPPORTED; FAMILY_UNKNOWN, TENSOR_UNKNOWN, TENSOR_MISSING, SHAPE_MISMATCH and what the dialect refuses
 */
export function matchModel(checkpoint: Checkpoint, { families = allFamilies }: LoadOptions): LoadedModel {
  const scales = pairScales(checkpoint.tensors);
  return { ...matchRoles(checkpoint, families, scales.scaleTensors), scales };
}

/**
 * As `matchModel`, for a checkpoint that exists: where it fits no model, the error says what lies there instead.
 *
 * @throws what `matchModel` throws, or the code of a known near miss
 */
export async function loadModel(checkpoint: Checkpoint, options: LoadOptions = {}): Promise<LoadedModel> {
  try {
    return matchModel(checkpoint, options);
  } catch (error) {
    const { formats = allFormats } = options;
    const recognised = await recognise(error, { address: checkpoint.store.url, formats, checkpoint });
    throw isNearMiss(recognised) ? recognised : withLikeNamed(recognised, checkpoint);
  }
}

/**
 * Reads the values of all scales, and compares samples of tensors that the config ties. Nothing else is read.
 *
 * @throws SCALE_INVALID, REPLICA_DIFFERS
 */
export async function readScaleValues(model: LoadedModel): Promise<ModelWithScales> {
  await using sources = new Sources(model.checkpoint.store);
  await refuseTiedApart(model, sources);
  const scaleValues = new Map<string, Float32Array>();
  for (const [weight, { tensor }] of model.scales.scaleOf) {
    scaleValues.set(weight, await readScales(model.tensors.get(tensor)!, sources));
  }
  return { ...model, scaleValues };
}

/** Loads a model and reads the values of its scales. @throws as `loadModel` and `readScaleValues` */
export async function loadModelWithScales(
  checkpoint: Checkpoint,
  options: LoadOptions,
): Promise<ModelWithScales> {
  return readScaleValues(await loadModel(checkpoint, options));
}

/** How a checkpoint stores a role. */
export interface StoredRole {
  readonly dtype: DType;
  /** its `tensorKey` */
  readonly tensor: string;
}

/** The first tensor that a role draws on: all of them have its dtype, because a plan joins no unlike ones. */
export function storedRole({ roleSources, tensors }: Matched, role: Role): StoredRole {
  const tensor = roleSources.get(role.key)![0]!.of!;
  return { dtype: tensors.get(tensor)!.dtype, tensor };
}

/** Where settings came from another checkpoint (`--like`) and do not fit, the error names that checkpoint. */
function withLikeNamed(error: unknown, { hints, config }: Checkpoint): unknown {
  const { like } = hints ?? {};
  if (!(error instanceof IsologitError) || error.exit !== 3 || like === undefined) return error;
  const { code, message, at, cause } = error;
  const isAll = Object.keys(config).length === 0;
  const text = `${message}; ${isAll ? "the config" : "what its config does not say"} is from \`like\` ${like.store.url}`;
  const next = isAll ? "give `like` a checkpoint of the same architecture" : error.next;
  return new IsologitError(code, text, at, { cause, next });
}

/** Samples of the head and of the token table, where the config ties them and both are stored. */
async function refuseTiedApart({ replicas, tensors }: Matched, sources: Sources): Promise<void> {
  for (const replica of replicas.filter(({ tied }) => tied === true)) {
    const [copy, original] = [tensors.get(replica.tensor)!, tensors.get(replica.of)!];
    if (copy.pieces.length === 0) continue; // planned, and not written yet
    const index = await findSampledDifference(copy, original, sources);
    if (index >= 0) throw replicaError(replica, index);
  }
}
