/** Loads a model from a checkpoint: matches every stored tensor to a role of the family, and pairs scales with weights. */
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { type DType, isDecodedBlock, isFp8 } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { findSampledDifference } from "../core/first-difference.ts";
import { Sources } from "../core/read.ts";
import { matchRoles, replicaError } from "../families/match.ts";
import type { MatchedModel, Role } from "../families/model.ts";
import type { PluginOptions } from "../plugins/plugin.ts";
import { registryOf } from "../plugins/registry.ts";
import { type DecodedPart, decodedTensor, decodingStore, type EncodedWeight } from "./scales/decode.ts";
import type { ScaleBlocks } from "./scales/extent.ts";
import { unpackCodes } from "./scales/packed-codes.ts";
import { pairScales, type ScaleTable, type WeightScale } from "./scales/pair.ts";
import { readScales } from "./scales/values.ts";
import { withStoredValues } from "./stored-functions.ts";

/** A checkpoint with every tensor matched to a role of its family. */
export interface LoadedModel extends MatchedModel {
  /** the scale of each weight, and the scales that no forward pass reads */
  readonly scales: ScaleTable;
  /** of a cut model: its source, and the name that a tensor of the source gets; null: it is left out */
  readonly cutFrom?: { readonly source: LoadedModel; rename(name: string): string | null };
}

/** A loaded model with the values of its scales. It can be compared and run. */
export interface ModelWithScales extends LoadedModel {
  /** stored tensor -> its scales, one for the whole tensor or one for each row; scales of blocks are read with the codes */
  readonly scaleValues: ReadonlyMap<string, Float32Array>;
}

/**
 * Pairs scales and matches roles. Only names, dtypes and shapes are used, so a planned checkpoint can be matched too.
 *
 * @throws SCALE_INVALID, UNSUPPORTED; FAMILY_UNKNOWN, TENSOR_UNKNOWN, TENSOR_MISSING, SHAPE_MISMATCH and the errors of the dialect
 */
export function matchModel(stored: Checkpoint, options: PluginOptions): LoadedModel {
  const checkpoint = unpackCodes(stored);
  const scales = pairScales(checkpoint.tensors, checkpoint.config);
  const matched = matchRoles(checkpoint, registryOf(options).families, scales.scaleTensors);
  return { ...withStoredValues(matched), scales };
}

/**
 * As `matchModel`, for a checkpoint that exists. If the checkpoint fits no model, the error names the known near miss.
 *
 * @throws the errors of `matchModel`, UNSUPPORTED for a projection of bytes without scales, or the code of a known near miss
 */
export async function loadModel(checkpoint: Checkpoint, options: PluginOptions = {}): Promise<LoadedModel> {
  try {
    const model = matchModel(checkpoint, options);
    refuseBytes(model);
    return model;
  } catch (error) {
    const { formats } = registryOf(options);
    const { isNearMiss, recognise } = await import("./near-misses/recognise.ts"); // only after a failure
    const recognised = await recognise(error, { address: checkpoint.store.url, formats, checkpoint });
    throw isNearMiss(recognised) ? recognised : withLikeAddress(recognised, checkpoint);
  }
}

/**
 * Reads the values of all scales, and compares samples of tensors that the config ties. No other data is read.
 *
 * @throws SCALE_INVALID, REPLICA_DIFFERS
 */
export async function readScaleValues(model: LoadedModel): Promise<ModelWithScales> {
  await using sources = new Sources(model.checkpoint.store);
  await refuseUntied(model, sources);
  const scaleValues = new Map<string, Float32Array>();
  for (const [weight, { tensor, extent }] of model.scales.scaleOf) {
    if (extent !== "block") scaleValues.set(weight, await readScales(model.tensors.get(tensor)!, sources));
  }
  return { ...model, scaleValues };
}

/** Loads a model and reads the values of its scales. @throws as `loadModel` and `readScaleValues` */
export async function loadModelWithScales(
  checkpoint: Checkpoint,
  options: PluginOptions,
): Promise<ModelWithScales> {
  return readScaleValues(await loadModel(checkpoint, options));
}

/** Which weights are decoded although kernels read them as stored: FP8 with one scale, and quantised types of ggml. */
interface AlsoDecoded {
  readonly oneScale?: boolean;
  readonly blocks?: boolean;
}

/** The weights whose codes and scales are decoded when they are read, by `tensorKey`. The others have one scale or none. */
export function encodedWeights(
  { tensors, scales }: LoadedModel,
  { oneScale = false, blocks = true }: AlsoDecoded = {},
): ReadonlyMap<string, EncodedWeight> {
  const encoded = new Map<string, EncodedWeight>();
  for (const [key, codes] of tensors) {
    const scale = scales.scaleOf.get(codes.name) ?? null;
    const isKept =
      scale === null ? !blocks || !isDecodedBlock(codes.dtype) : isOneScale(scale, codes) && !oneScale;
    if (!isKept) encoded.set(key, { codes, scale, tensors });
  }
  return encoded;
}

const isOneScale = ({ extent }: WeightScale, { dtype }: Tensor): boolean =>
  extent === "tensor" && isFp8(dtype);

/**
 * The model with those weights as F32 tensors in place of their codes, as forward passes read them. Only names change;
 * values are computed when they are read.
 */
export function decodeWeights<M extends LoadedModel>(
  model: M,
  { oneScale, blocks = false }: AlsoDecoded = {},
): M {
  const encoded = encodedWeights(model, { oneScale: oneScale ?? false, blocks });
  if (encoded.size === 0) return model;
  const tensors = new Map(
    [...model.tensors].map(([key, tensor]) => [
      key,
      encoded.has(key) ? decodedTensor(tensor, "value") : tensor,
    ]),
  );
  const isOne = (name: string) => !encoded.has(name);
  const { scales, checkpoint } = model;
  const scaleOf = new Map([...scales.scaleOf].filter(([name]) => isOne(name)));
  const store = decodingStore(checkpoint, encoded);
  return { ...model, tensors, scales: { ...scales, scaleOf }, checkpoint: { ...checkpoint, store } };
}

/** Key of the values of an encoded weight, or of their scales, in the tensors of `withDecodedValues`. */
export function decodedKey(key: string, part: DecodedPart = "value"): string {
  return `decoded ${part} of ${key}`;
}

/** The key of a stored tensor, also for a key that `decodedKey` made of it. */
export function storedKey(key: string): string {
  return key.replace(/^decoded (value|scale) of /, "");
}

/** The model with further F32 tensors under `decodedKey`: the values of each encoded weight, and the scale of each value. */
export function withDecodedValues<M extends LoadedModel>(model: M): M {
  const encoded = encodedWeights(model);
  if (encoded.size === 0) return model;
  const tensors = new Map(model.tensors);
  for (const [key, { codes, scale }] of encoded) {
    for (const part of scale === null ? (["value"] as const) : (["value", "scale"] as const))
      tensors.set(decodedKey(key, part), decodedTensor(codes, part));
  }
  const store = decodingStore(model.checkpoint, encoded);
  return { ...model, tensors, checkpoint: { ...model.checkpoint, store } };
}

/** How a checkpoint stores a role. */
interface StoredRole {
  readonly dtype: DType;
  /** `tensorKey` of the tensor */
  readonly tensor: string;
  /** which elements share a scale; undefined: the stored numbers are the values */
  readonly scaled?: Pick<ScaleBlocks, "extent" | "block">;
}

/** The first tensor of a role. All tensors of a role have one dtype, because matching refuses other roles. */
export function storedRole({ roleSources, tensors, scales }: LoadedModel, role: Role): StoredRole {
  const key = roleSources.get(role.key)![0]!.of!;
  const { name, dtype } = tensors.get(key)!;
  const scale = scales.scaleOf.get(name);
  return {
    dtype,
    tensor: key,
    ...(scale !== undefined && { scaled: { extent: scale.extent, block: scale.block } }),
  };
}

/** Whether two checkpoints store a role in one form: the same dtype, and scales of the same extent. */
export function isSameForm(a: StoredRole, b: StoredRole): boolean {
  if (a.dtype !== b.dtype || a.scaled?.extent !== b.scaled?.extent) return false;
  return a.scaled?.extent !== "block" || a.scaled.block.every((side, axis) => side === b.scaled!.block[axis]);
}

/** Bytes are codes of FP8 or INT8. Without scales beside them they mean nothing, and a copy would be taken for a model. */
function refuseBytes(model: LoadedModel): void {
  for (const role of model.roles.values()) {
    const { dtype, tensor, scaled } = storedRole(model, role);
    if (role.spec.kind !== "matrix" || scaled !== undefined || (dtype !== "U8" && dtype !== "I8")) continue;
    const message = `it is ${dtype}: codes without a scale beside them`;
    const next =
      model.checkpoint.moduleStates === undefined
        ? "give the checkpoint that was quantised"
        : "load it with Transformer Engine, whose states hold the scales, and save the weights after `dequantize()`";
    throw new IsologitError("UNSUPPORTED", message, { tensor }, { next });
  }
}

/** Adds the checkpoint of `like` to an error about settings that came from there and do not fit. */
function withLikeAddress(error: unknown, { hints, config }: Checkpoint): unknown {
  const { like } = hints ?? {};
  if (!(error instanceof IsologitError) || error.exit !== 3 || like === undefined) return error;
  const { code, message, at, cause } = error;
  const isAll = Object.keys(config).length === 0;
  const text = `${message}; ${isAll ? "the config" : "the missing settings"} is from \`like\` ${like.store.url}`;
  const next = isAll ? "give `like` a checkpoint of the same architecture" : error.next;
  return new IsologitError(code, text, at, { cause, next });
}

/** Compares samples of the head and of the token table, if the config ties them and both are stored. */
async function refuseUntied({ replicas, tensors }: MatchedModel, sources: Sources): Promise<void> {
  for (const replica of replicas.filter(({ tied }) => tied === true)) {
    const [copy, original] = [tensors.get(replica.tensor)!, tensors.get(replica.of)!];
    if (copy.pieces.length === 0) continue; // a planned tensor is not written yet
    const index = await findSampledDifference(copy, original, sources);
    if (index >= 0) throw replicaError(replica, index);
  }
}
