/** `inspect`: describes a checkpoint from its headers. No weight is read. */

import type { GgufFacts } from "../../formats/gguf/facts.ts";
import { type DeclaredQuantization, declaredQuantization } from "../checkpoint/declared-quantization.ts";
import { type LoadedModel, loadModel } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import { pairScales, type ScaleTable } from "../checkpoint/scales/pair.ts";
import { readTrainingPrecision, type TrainingPrecision } from "../checkpoint/training-precision.ts";
import { type Checkpoint, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { blockElements, bytesOf, countOf, isBlockDType } from "../core/dtype.ts";
import { isJsonObject } from "../core/json.ts";
import { mainLayers } from "../families/model.ts";
import { familyOf } from "../families/recognise.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import { registryOf } from "../plugins/registry.ts";
import { describeScheme, schemeOf } from "../quantization/scheme.ts";

export interface InspectReport extends PluginsReport {
  readonly format: string;
  /** null if the family is unknown, as are `family` and `pattern` */
  readonly dialect: string | null;
  readonly family: string | null;
  /** the layers of the model as letters */
  readonly pattern: string | null;
  readonly layers: {
    readonly mamba: number;
    readonly attention: number;
    readonly mlp: number;
    readonly moe: number;
    /** layer kinds of other families */
    readonly [kind: string]: number;
  };
  /** widths and counts of the family that this model uses, by name; null if the family is unknown */
  readonly dims: Readonly<Record<string, number>> | null;
  /** rows without a token in the token table */
  readonly paddingRows: number;
  /** tensor-parallel, pipeline-parallel and expert-parallel ranks that the tensors are stored for */
  readonly ranks: { readonly tp: number; readonly pp: number; readonly ep: number };
  /** iteration of the training run; null for a checkpoint without one */
  readonly iteration: number | null;
  /** elements of all tensors, without scales */
  readonly parameters: number;
  /** size of all tensors */
  readonly bytes: number;
  readonly dtypes: Readonly<Record<string, { readonly tensors: number; readonly bytes: number }>>;
  readonly quantization: Readonly<Record<string, unknown>> | null;
  /** absent unless modules were trained in FP8 */
  readonly training?: TrainingPrecision;
  /** what the header of a GGUF says; absent for other formats */
  readonly gguf?: GgufFacts;
  /** paths of the side files */
  readonly sidecars: readonly string[];
  /** set if the option `tensors` is set */
  readonly tensors?: readonly InspectedTensor[];
}

interface InspectedTensor {
  readonly name: string;
  readonly role: string | null;
  readonly layer: number | null;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly scale?: string;
}

/**
 * Describes a checkpoint: format, family, layers, dtypes, quantization.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options `tensors` lists every tensor too
 * @returns the description; sizes are in bytes
 * @throws the errors of opening a checkpoint, and for a known family the errors of matching it
 * @example
 * const { family, parameters } = await inspect("./nemotron-h-8b");
 */
export async function inspect(
  source: string,
  options: RunOptions & SourceOptions & { tensors?: boolean } = {},
): Promise<InspectReport> {
  const checkpoint = await openCheckpoint(source, { ...options, makeFiles: false });
  const known = familyOf(checkpoint.config, registryOf(options).families) !== undefined;
  const model = known ? await loadModel(checkpoint, options) : null;
  const scales = model?.scales ?? pairScales(checkpoint.tensors, checkpoint.config);
  const training = await readTrainingPrecision(checkpoint);
  const weights = checkpoint.tensors.filter(({ name }) => !scales.scaleTensors.has(name));
  return {
    format: checkpoint.format,
    dialect: model?.dialect.id ?? null,
    family: model?.family.id ?? null,
    pattern: model === null ? null : model.family.pattern(model.settings),
    layers: layerCounts(model),
    dims: model === null ? null : dimsOf(model),
    paddingRows: model === null ? 0 : model.parallelism.rows - model.dims.vocab,
    ranks: ranksOf(checkpoint),
    iteration: iterationOf(checkpoint),
    parameters: weights.reduce((sum, { shape }) => sum + countOf(shape), 0),
    bytes: checkpoint.tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0),
    dtypes: dtypesOf(checkpoint),
    quantization: quantizationOf(await declaredQuantization(checkpoint), checkpoint, scales),
    ...(training !== null && { training }),
    ...(checkpoint.format === "gguf" && { gguf: await factsOf(checkpoint) }),
    sidecars: checkpoint.sidecars.map(({ path }) => path),
    ...(options.tensors === true && { tensors: tensorsOf(checkpoint, model, scales) }),
    ...pluginsReport(options),
  };
}

async function factsOf(checkpoint: Checkpoint): Promise<GgufFacts> {
  const { ggufFacts } = await import("../../formats/gguf/facts.ts"); // only for this format
  return ggufFacts(checkpoint);
}

/** Layers of the main stack by kind. The four kinds of Nemotron-H are always present, because scripts read them. */
function layerCounts(model: LoadedModel | null): InspectReport["layers"] {
  const count = (kind: string) =>
    model === null ? 0 : mainLayers(model).filter((layer) => layer.kind === kind).length;
  const kinds = model?.family.kinds ?? [];
  return {
    ...{ mamba: count("mamba"), attention: count("attention"), mlp: count("mlp"), moe: count("moe") },
    ...Object.fromEntries(kinds.map((kind) => [kind, count(kind)])),
  };
}

function dimsOf({ dims }: LoadedModel): NonNullable<InspectReport["dims"]> {
  return Object.fromEntries(
    Object.entries(dims).filter(([, value]) => Number.isSafeInteger(value) && Number(value) > 0),
  );
}

function ranksOf({ tensors }: Checkpoint): InspectReport["ranks"] {
  const count = (of: "tp" | "pp" | "ep") =>
    tensors.reduce((most, { rank }) => Math.max(most, (rank?.[of] ?? 0) + 1), 1);
  return { tp: count("tp"), pp: count("pp"), ep: count("ep") };
}

/** The iteration whose folder holds the weights. */
function iterationOf({ tensors }: Checkpoint): number | null {
  const [, digits] = /(?:^|\/)iter_(\d+)\//.exec(tensors[0]?.pieces[0]?.file ?? "") ?? [];
  return digits === undefined ? null : Number(digits);
}

function dtypesOf({ tensors }: Checkpoint): InspectReport["dtypes"] {
  const dtypes: Record<string, { tensors: number; bytes: number }> = {};
  for (const { dtype, shape } of tensors) {
    const { tensors: n, bytes } = dtypes[dtype] ?? { tensors: 0, bytes: 0 };
    dtypes[dtype] = { tensors: n + 1, bytes: bytes + bytesOf(dtype, shape) };
  }
  return dtypes;
}

/** Quantization as the config declares it and as the tensors show it. */
function quantizationOf(
  from: DeclaredQuantization | null,
  { recasts, tensors }: Checkpoint,
  scales: ScaleTable,
): InspectReport["quantization"] {
  const value = from?.value ?? null;
  const hasCodes = scales.scaleOf.size > 0 || tensors.some(({ dtype }) => isBlockDType(dtype));
  if (value === null && !hasCodes && recasts.length === 0) return null;
  const declared = isJsonObject(value) ? value : {};
  const scheme = schemeOf(declared);
  return {
    method: typeof declared.quant_method === "string" ? declared.quant_method : null,
    format: [declared.format, declared.quant_algo].find((name) => typeof name === "string") ?? null,
    declares: scheme === null ? [] : describeScheme(scheme),
    stores: storedCodes(tensors, scales),
    scaledTensors: scales.scaleOf.size,
    recasts: [...new Set(recasts.map(({ kind }) => kind))],
  };
}

/** How many weights are stored as which codes, such as `8 F8_E4M3, one scale per tensor` or `8 Q4_K, blocks of 256`. */
function storedCodes(tensors: readonly Tensor[], { scaleOf }: ScaleTable): readonly string[] {
  const counts = new Map<string, number>();
  for (const { name, dtype } of tensors) {
    if (isBlockDType(dtype)) {
      const codes = `${dtype}, blocks of ${blockElements(dtype)}`;
      counts.set(codes, (counts.get(codes) ?? 0) + 1);
    }
    const scale = scaleOf.get(name);
    if (scale === undefined) continue;
    const extent = scale.extent === "block" ? `block of ${scale.block.join(" x ")}` : scale.extent;
    const codes = `${dtype}, one scale per ${extent}${scale.second === undefined ? "" : " and one per tensor"}`;
    counts.set(codes, (counts.get(codes) ?? 0) + 1);
  }
  return [...counts].map(([codes, count]) => `${count} ${codes}`);
}

function tensorsOf(
  checkpoint: Checkpoint,
  model: LoadedModel | null,
  scales: ScaleTable,
): readonly InspectedTensor[] {
  return checkpoint.tensors.map((tensor) => {
    const { name, dtype, shape } = tensor;
    const role = model?.roles.get(model.holds.get(tensorKey(tensor))?.[0] ?? "");
    const scale = scales.scaleOf.get(name);
    return {
      name,
      role: role?.spec.role ?? null,
      layer: role?.layer?.index ?? null,
      dtype,
      shape,
      ...(scale !== undefined && { scale: scale.tensor }),
    };
  });
}
