/**
 * Plans a conversion: which stored tensors of the source make up each tensor of the destination, how they are recast, and
 * where every byte goes. Only headers and side files are read.
 */

import type { WriteRequest, Writer } from "../../formats/format.ts";
import { type LoadedModel, withDecodedValues } from "../checkpoint/load.ts";
import { refuseBlocks } from "../checkpoint/multiplied-values.ts";
import {
  describeTraining,
  readTrainingPrecision,
  type TrainingPrecision,
} from "../checkpoint/training-precision.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { type DType, isBlockDType, isFileKind, isFnuz, RECASTS } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { formatQuantity } from "../core/figures.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import type { Dialect } from "../families/dialect.ts";
import type { Recipe } from "../families/family.ts";
import type { MatchedModel } from "../families/model.ts";
import { dialectOf } from "../families/recognise.ts";
import type { Parallelism } from "../families/structure.ts";
import { pluginsReport } from "../plugins/plugin.ts";
import type { Calibration } from "../quantization/calibration.ts";
import { policyOf } from "../quantization/policy.ts";
import { DEFAULT_MEMORY_BYTES, poolSize } from "../workers/pool.ts";
import { conversionOf } from "./conversion-record.ts";
import { chooseTypes, describeFileKind, fallbackWarnings, typeRule } from "./dtypes/file-kind.ts";
import { findNarrowedTypes } from "./dtypes/narrowed-types.ts";
import { shareScales } from "./fused-scales.ts";
import { largestHeld } from "./held-tensors.ts";
import { planJobs } from "./jobs.ts";
import type { PlanOptions } from "./options.ts";
import {
  droppedFiles,
  fileWarnings,
  lostKeys,
  renameWarnings,
  skippedTensors,
  tiedHeadWarnings,
} from "./plan-warnings.ts";
import { chooseNames, type PlannedWeight, planWeights } from "./planned-weights.ts";
import { planQuantization } from "./quantized-output.ts";
import { planSidecars } from "./sidecars/sidecars.ts";
import { multiplyTensors } from "./tensors/multiplied-tensors.ts";
import { transformTensors } from "./transformed-tensors.ts";
import type { Job, Plan } from "./types.ts";

/** What a source is converted into. */
interface PlanTarget {
  readonly writer: Writer;
  readonly options: PlanOptions;
  /** version of this program; like the names of plug-ins, it enters the plan's id */
  readonly version: string;
  /** restore the files that an earlier conversion carried in `isologit.origin/`; default true */
  readonly restore?: boolean;
  /** in place of the recipe that the options name */
  readonly recipe?: Recipe;
  /** what `calibrate` found; default null */
  readonly calibration?: Calibration | null;
}

/** @throws every error that can be known before a byte is written */
export async function planConversion(
  matched: LoadedModel,
  { writer, options, version, restore = true, recipe, calibration = null }: PlanTarget,
): Promise<Plan> {
  const { scales, checkpoint: source } = matched;
  refuseBlocks(matched);
  const policy = await policyOf(options, matched.family, recipe);
  const rule = typeRule(policy);
  if (policy.to !== null && rule === null) refuseDtype(writer, policy.to);
  const dialect = dialectOf(matched.family, writer.dialect);
  const ranks = ranksFor(options, writer);
  const parallelism = dialect.cut(matched, { tp: 1, pp: 1, ...ranks });
  const stored = chooseNames(matched, dialect, writer, policy, options, parallelism);
  const narrowed = await findNarrowedTypes(matched, stored, policy);
  const choices = await chooseTypes(policy, writer, stored, options);
  const weights = planWeights(matched, policy, stored, narrowed, choices);
  const fileKind = choices === null || rule === null ? null : describeFileKind(rule, weights, choices);
  const isCopy = options.fnuz === "keep" && policy.to === null && options.quantDialect === undefined;
  if (!isCopy) refuseKeptFnuz(weights);
  const training = await readTrainingPrecision(source);
  const quantized = await planQuantization(matched, weights, policy, options, calibration);
  const sameDialect = dialect.id === matched.dialect.id;
  const planned = planJobs(matched, weights, quantized, sameDialect);
  const { jobs: separate, known: calibrated } = planned;
  const constants = dialect.constants?.(matched) ?? [];
  const transformed = await transformTensors(matched, weights, separate);
  const multiplied = multiplyTensors(withDecodedValues(matched), weights, transformed.jobs, policy);
  const jobs = options.fuseScales === true ? shareScales(multiplied.jobs) : multiplied.jobs;
  const written = new Map(multiplied.jobs.map(({ tensor }) => [tensorKey(tensor), tensor]));
  const tensors = [
    ...planned.tensors.map((tensor) => written.get(tensorKey(tensor)) ?? tensor),
    ...constants.map(({ name, shape }) => ({ name, dtype: "F32" as const, shape })),
  ];
  const computed = [
    ...transformed.known,
    ...constants.map(({ name, values }) => [name, bytesIn(values)] as const),
  ];
  const known = new Map([...calibrated, ...computed]);
  for (const { name, dtype } of tensors) refuseDtype(writer, dtype, name);
  if (matched.tied && writer.config === "file") refuseUntied(jobs);
  const keepsConfig = sameDialect && writer.config === "file";
  const record = keepsConfig
    ? { config: source.config, notes: [] }
    : recordFor(matched, jobs, writer, dialect, parallelism);
  const {
    sidecars,
    weightFiles: headers,
    warnings,
    restored,
  } = await planSidecars({
    source: matched,
    ...{ writer, dialect, jobs, policy, quantized, restore },
    config: record.config,
  });
  const manifest: WriteRequest = {
    config: { ...record.config, ...transformed.keys },
    dialect: writer.dialect,
    tensors,
    objects: dialect.objects(matched),
    ...(dialect.stacksLayers?.(matched) === true && { stackLayers: true }),
    sidecars,
    weightFiles: headers,
    options: {
      ...(options.maxShardBytes !== undefined && { maxShardBytes: options.maxShardBytes }),
      ...(options.alignment !== undefined && { alignment: options.alignment }),
      ...ranks,
      ...(isFileKind(policy.kind) && { fileKind: policy.kind }),
    },
  };
  const placement = await writer.place(manifest);
  const inline = placement.inline.map(({ file, offset, bytes }) => [file, offset, sha256(bytes)]);
  const read = source.tensors.map((tensor) => [
    ...[tensorKey(tensor), tensor.dtype, tensor.shape],
    // the id hashes these keys: a plan of an earlier version must keep its id
    tensor.pieces.map(({ start: origin, ...piece }) => ({ ...piece, origin })),
  ]);
  const cast = jobs.map((job) => [tensorKey(job.tensor), job.cast ?? null]);
  return {
    id: sha256(
      canonicalJson({
        ...{ version, read, cast, files: placement.files, tensors: placement.tensors, inline },
        ...pluginsReport(options),
        ...(calibration !== null && { calibration: calibrationDigest(calibration, calibrated) }),
        ...(computed.length > 0 && { known: digestsOf(computed) }),
      }),
    ),
    conversion: conversionOf(options, policy.recipe, matched.family.recipes, calibration),
    source: multiplied.source,
    scales,
    manifest,
    placement,
    jobs,
    known,
    calibrated: calibration?.record ?? null,
    fileKind,
    exact: options.fnuz !== "relabel" && jobs.every((job) => job.cast === undefined),
    restored,
    pool: poolSize(options.memoryBytes ?? DEFAULT_MEMORY_BYTES, options.threads, largestHeld(jobs)),
    warnings: [
      ...fileWarnings(source, options),
      ...(training === null ? [] : [trainingWarning(training)]),
      ...(options.fnuz === "relabel" ? [RELABELLED] : []),
      ...(keepsConfig && matched.takenRows === undefined ? renameWarnings(matched, tensors) : []),
      ...skippedTensors(matched),
      ...tiedHeadWarnings(matched, stored),
      ...(fileKind === null ? [] : fallbackWarnings(fileKind)),
      ...matched.notes,
      ...(keepsConfig ? [] : lostKeys(matched)),
      ...record.notes,
      ...(quantized.kind === "copied" ? [] : quantized.warnings),
      ...warnings,
      ...(placement.notes ?? []),
    ],
    dropped: [
      ...matched.dropped.map(({ why, names }) => ({ why, entries: names.length })),
      ...droppedFiles(source, options),
    ],
    padding: {
      cut: matched.parallelism.rows - matched.dims.vocab,
      added: parallelism.rows - matched.dims.vocab,
    },
  };
}

/** Weights of such a run are stored as they are trained, in BF16 or F32; FP8 is computed from them in each step. */
const trainingWarning = (training: TrainingPrecision) =>
  `the source was trained in ${describeTraining(training)}: its weights are converted as they are stored, and the scales of the training are left out, because they describe its activations and gradients and no stored weight`;

const RELABELLED =
  "FP8 weights of FNUZ types become the OCP types: the codes stay and the scales of weights are halved, so no weight changes; scales of activations stay";

/** @throws PLAN_IMPOSSIBLE for a FNUZ weight that would be copied, which most software takes for another type */
function refuseKeptFnuz(weights: readonly PlannedWeight[]): void {
  const kept = weights.filter(({ dtype }) => isFnuz(dtype));
  const [first] = kept;
  if (first === undefined) return;
  const message = `it would stay ${first.dtype}, the FP8 of AMD's MI300 (${formatQuantity(kept.length, "weight")}): the same bits mean half of their value in the OCP type, and 0x80 is NaN`;
  const next =
    "choose `fnuz` relabel for the OCP type (the same codes, half the scale), `dtype` bf16 to decode them, or `fnuz` keep, without `dtype`, to copy everything";
  throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: first.from[0]!.name }, { next });
}

/** What the id of a plan covers of a calibration: its prompt, and the scales that are written. */
function calibrationDigest({ record }: Calibration, scales: ReadonlyMap<string, Uint8Array>) {
  return { record, scales: digestsOf(scales) };
}

const bytesIn = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  new Uint8Array(buffer, byteOffset, byteLength);

const digestsOf = (known: Iterable<readonly [string, Uint8Array]>) =>
  [...known].map(([name, bytes]) => [name, sha256(bytes)]);

/** @throws PLAN_IMPOSSIBLE if a recast would give tied tensors different types */
function refuseUntied(jobs: readonly Job[]): void {
  for (const { role, tensor } of jobs) {
    const other = jobs.find((job) => job.role?.key === role?.spec.tiedTo)?.tensor;
    if (role?.spec.tiedTo === undefined || other === undefined || other.dtype === tensor.dtype) continue;
    const message = `it would be ${tensor.dtype} and ${other.name} ${other.dtype}, but tie_word_embeddings is true: engines that tie them would not read it`;
    const next = "use a recipe that keeps the head, as `recipe` nemotron-h does";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: tensor.name }, { next });
  }
}

/** What to do where ranks mean nothing. */
const WITHOUT_RANKS = {
  tp: "leave it out: nothing is cut there",
  pp: "leave it out: the pieces load at any size",
} as const;

/** @throws USAGE for ranks that the format's tensors are not cut for */
function ranksFor({ tp, pp }: PlanOptions, { ranks = [], software }: Writer): { tp?: number; pp?: number } {
  const wanted = { ...(tp !== undefined && { tp }), ...(pp !== undefined && { pp }) };
  for (const option of ["tp", "pp"] as const) {
    if (wanted[option] === undefined || ranks.includes(option)) continue;
    const message = `\`${option}\` has no meaning for what ${software} loads`;
    throw new IsologitError("USAGE", message, {}, { next: WITHOUT_RANKS[option] });
  }
  return wanted;
}

/** @param tensor absent if the type is that of the whole recast */
function refuseDtype(writer: Writer, dtype: DType, tensor?: string): void {
  if (writer.dtypes.includes(dtype)) return;
  throw new IsologitError(
    "PLAN_IMPOSSIBLE",
    `this format cannot store ${dtype}`,
    tensor === undefined ? {} : { tensor },
    {
      next: isBlockDType(dtype)
        ? "give `dtype` f32, f16 or bf16: quantised types of ggml are stored by GGUF only"
        : "convert it with `dtype` bf16, or to hf or packed",
    },
  );
}

/** The config record for a destination that the source's config does not fit. */
function recordFor(
  source: MatchedModel,
  jobs: readonly Job[],
  writer: Writer,
  dialect: Dialect,
  parallelism: Parallelism,
) {
  const embedding = jobs.find(({ role }) => role?.spec.kind === "embedding")?.tensor.dtype;
  const torch = Object.values(RECASTS).find(({ dtype }) => dtype === embedding)?.torch;
  const { settings, passthrough } = source;
  return dialect.config({
    settings,
    passthrough,
    software: writer.software,
    parallelism: parallelism,
    dtype: torch ?? RECASTS.bf16.torch,
  });
}
