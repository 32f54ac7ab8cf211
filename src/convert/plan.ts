/**
 * What a conversion will do, as a value: which stored tensors of the source make up each tensor of the destination,
 * how they are recast, and where every byte lies. Pure but for the reading of headers.
 */
import type { Manifest, Placement, WantedTensor, Writer } from "../../formats/define.ts";
import type { PlannedTensor, PlanOptions } from "../api.ts";
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { bitsOf, bytesOf, countOf, type DType, type FloatDType, isFloat, isFp8 } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Origin } from "../core/gather.ts";
import { readRange } from "../core/io.ts";
import { movesOf, shapeOf } from "../core/layout.ts";
import { Sources } from "../core/read.ts";
import { canonical, sha256 } from "../core/root.ts";
import type { Dialect, Family } from "../families/define.ts";
import {
  dialectOf,
  leavesOf,
  type Matched,
  matchRoles,
  type Role,
  type Stored,
  storedBy,
} from "../families/match.ts";
import { DEFAULT_MEMORY_BYTES, poolSize } from "../lanes/pool.ts";
import { type Policy, policyOf, recastFor } from "../recast/policy.ts";
import {
  pairScales,
  QUANTIZATION_FILES,
  quantizationConfig,
  SCALE_SHAPE,
  type Scales,
  scaleName,
  withDtype,
  withoutQuantization,
  withQuantization,
} from "../recast/spelling.ts";

/** One tensor's way from source to destination. */
export interface Job {
  readonly tensor: WantedTensor;
  /** what it is in the model, the first of those it joins; null for a scale */
  readonly role: Role | null;
  readonly origin: Origin;
  readonly sourceDtype: DType;
  readonly count: number;
  /** absent: the bits stay */
  readonly cast?: {
    readonly from: FloatDType;
    readonly to: FloatDType;
    /** stored scale of an FP8 source that is decoded */
    readonly sourceScale?: string;
    /** tensor that receives the scale of an FP8 destination */
    readonly scaleTo?: string;
  };
}

export interface Plan {
  /** SHA-256 of all that the plan depends on: equal ids give equal bytes */
  readonly id: string;
  readonly source: Matched;
  readonly scales: Scales;
  readonly manifest: Manifest;
  readonly placement: Placement;
  readonly jobs: readonly Job[];
  /** nothing is recast: the content root stays */
  readonly exact: boolean;
  /** buffers, bytes */
  readonly peakBytes: number;
  readonly warnings: readonly string[];
}

export interface Planning {
  readonly source: Checkpoint;
  readonly writer: Writer;
  readonly families: readonly Family[];
  readonly options: PlanOptions;
  readonly version: string;
}

const KIND = { F32: "f32", F16: "f16", BF16: "bf16", F8_E4M3: "fp8-e4m3", F8_E5M2: "fp8-e5m2" } as const;

/** @throws everything that can be known to fail before a byte is written */
export async function planConversion({
  source,
  writer,
  families,
  options,
  version,
}: Planning): Promise<Plan> {
  const scales = pairScales(source.tensors);
  const matched = matchRoles(source, families, scales.companions);
  const policy = await policyOf(options, matched.family);
  const destination = dialectOf(matched.family, writer.dialect);
  const { jobs, tensors } = jobsFor(
    matched,
    scales,
    policy,
    namesFor(matched, destination.id, writer, options),
    storedBy(matched, destination),
  );
  const { sidecars, warnings } = await sidecarsFor(matched, jobs, scales, policy, destination);
  const manifest: Manifest = {
    config: source.config,
    dialect: writer.dialect,
    tensors,
    objects: [],
    sidecars,
    shards: await shardsOf(source),
    options: {
      ...(options.maxShardBytes !== undefined && { maxShardBytes: options.maxShardBytes }),
      ...(options.alignment !== undefined && { alignment: options.alignment }),
    },
  };
  for (const { name, dtype } of tensors) {
    if (!writer.dtypes.includes(dtype)) {
      throw new IsologitError("PLAN_IMPOSSIBLE", `this format cannot store ${dtype}`, { tensor: name });
    }
  }
  const placement = writer.place(manifest);
  const inline = placement.inline.map(({ file, offset, bytes }) => [file, offset, sha256(bytes)]);
  const read = source.tensors.map(({ name, dtype, shape, pieces }) => [name, dtype, shape, pieces]);
  const cast = jobs.map((job) => [job.tensor.name, job.cast ?? null]);
  return {
    id: sha256(
      canonical({ version, read, cast, files: placement.files, tensors: placement.tensors, inline }),
    ),
    source: matched,
    scales,
    manifest,
    placement,
    jobs,
    exact: jobs.every((job) => job.cast === undefined),
    peakBytes: poolSize(options.memoryBytes ?? DEFAULT_MEMORY_BYTES, options.threads).bytes,
    warnings,
  };
}

/** The name each tensor gets: the source's own where its spelling is to be kept, else the published one. */
function namesFor(
  source: Matched,
  dialect: string,
  writer: Writer,
  options: PlanOptions,
): (stored: Stored) => string {
  const packed = source.checkpoint.format === "packed" || writer.container === "file";
  const verbatim = packed && dialect === source.dialect.id && options.maxShardBytes === undefined;
  return ({ name, also }) => (verbatim ? ([name, ...also].find((n) => source.tensors.has(n)) ?? name) : name);
}

function jobsFor(
  source: Matched,
  scales: Scales,
  policy: Policy,
  nameOf: (stored: Stored) => string,
  stored: readonly Stored[],
): { jobs: readonly Job[]; tensors: readonly WantedTensor[] } {
  const jobs: Job[] = [];
  const tensors: WantedTensor[] = [];
  const add = (job: Job) => {
    jobs.push(job);
    tensors.push(job.tensor);
  };
  const companionsOf = new Map<string, string[]>();
  for (const name of scales.companions) {
    const owner = scales.ownerOf.get(name);
    if (owner === undefined) continue; // a scale of the KV cache: it belongs to no weight, and is kept below
    companionsOf.set(owner, [...(companionsOf.get(owner) ?? []), name]);
  }
  for (const one of stored) {
    const name = nameOf(one);
    const shape = shapeOf(one.layout);
    const from = drawnFrom(source, one);
    const sourceDtype = from[0]!.dtype;
    const role = source.roles.get(leavesOf(one.layout)[0]!)!;
    const to = recastFor(role, sourceDtype, policy, source);
    const origin: Origin = { moves: movesOf(one.layout), roles: source.origin };
    const common = { role, origin, sourceDtype, count: countOf(shape) };
    if (to === "keep") {
      add({ ...common, tensor: { name, dtype: sourceDtype, shape } });
      // A kept FP8 weight keeps its scales, under the names they have.
      for (const companion of from.flatMap((tensor) => companionsOf.get(tensor.name) ?? [])) {
        add(kept(source.tensors.get(companion)!));
      }
      continue;
    }
    const scale = scales.scaleOf.get(from[0]!.name);
    if (scale?.axis === 0) {
      const message = "it has a scale a row, which is kept as it is, not recast";
      throw new IsologitError(
        "UNSUPPORTED",
        message,
        { tensor: from[0]!.name },
        { next: "use --dtype keep" },
      );
    }
    const scaleTo = isFp8(to) ? scaleName(name) : undefined;
    add({
      ...common,
      tensor: { name, dtype: to, shape, recast: { kind: KIND[to], sourceDtype } },
      cast: {
        from: castable(from[0]!),
        to,
        ...(scale !== undefined && { sourceScale: scale.tensor }),
        ...(scaleTo !== undefined && { scaleTo }),
      },
    });
    if (scaleTo !== undefined) tensors.push({ name: scaleTo, dtype: "F32", shape: SCALE_SHAPE });
  }
  for (const name of scales.companions) if (!scales.ownerOf.has(name)) add(kept(source.tensors.get(name)!));
  return { jobs, tensors };
}

/** The source's tensors behind a destination's: of one dtype, or nothing could be moved as it is. */
function drawnFrom(source: Matched, { name, layout }: Stored): readonly Tensor[] {
  const names = new Set(
    leavesOf(layout).flatMap((role) => (source.origin.get(role) ?? []).map((move) => move.of!)),
  );
  const tensors = [...names].map((n) => source.tensors.get(n)!);
  const other = tensors.find((tensor) => tensor.dtype !== tensors[0]!.dtype);
  if (other !== undefined) {
    const message = `it joins ${tensors[0]!.name} (${tensors[0]!.dtype}) and ${other.name} (${other.dtype})`;
    throw new IsologitError(
      "PLAN_IMPOSSIBLE",
      message,
      { tensor: name },
      { next: "make them one type with --dtype" },
    );
  }
  return tensors;
}

/** A tensor that is no role, moved as it is. */
function kept(tensor: Tensor): Job {
  const { name, dtype, shape } = tensor;
  const count = countOf(shape);
  const whole = { of: name, size: [count], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: { name, dtype, shape },
    role: null,
    origin: { moves: [whole], roles: new Map([[name, [whole]]]) },
    sourceDtype: dtype,
    count,
  };
}

function castable(tensor: Tensor): FloatDType {
  if (isFloat(tensor.dtype)) return tensor.dtype;
  throw new IsologitError("UNSUPPORTED", `${tensor.dtype} cannot be recast`, { tensor: tensor.name });
}

/** Every side file, config.json rewritten where the recast changes what it must say. */
async function sidecarsFor(
  source: Matched,
  jobs: readonly Job[],
  scales: Scales,
  policy: Policy,
  dialect: Dialect,
) {
  const { sidecars, store } = source.checkpoint;
  const config = sidecars.find(({ path }) => path === "config.json");
  const cast = jobs.filter((job) => job.cast !== undefined);
  if (config === undefined || cast.length === 0) return { sidecars, warnings: [] };
  await using file = await store.open(config.span.file);
  const stored = await readRange(file, config.span.offset, config.span.size);
  const { text, warnings } = configFor(
    new TextDecoder("utf-8", { fatal: true }).decode(stored),
    jobs,
    scales,
    policy,
    dialect,
  );
  const rewritten = { path: config.path, bytes: new TextEncoder().encode(text) };
  const kept = sidecars.filter((one) => one !== config && !QUANTIZATION_FILES.includes(one.path));
  return { sidecars: [...kept, rewritten].sort((a, b) => (a.path < b.path ? -1 : 1)), warnings };
}

/** config.json's text after a recast. */
function configFor(text: string, jobs: readonly Job[], scales: Scales, policy: Policy, dialect: Dialect) {
  const fp8 = jobs.filter(({ tensor }) => isFp8(tensor.dtype));
  if (jobs.some(({ cast }) => cast !== undefined && isFp8(cast.to))) {
    const linear = jobs.filter(({ role, tensor }) => {
      return (
        (role?.spec.kind === "matrix" || role?.spec.kind === "router") && tensor.name.endsWith(".weight")
      );
    });
    const kept = linear.filter(({ tensor }) => !isFp8(tensor.dtype)).map(({ tensor }) => tensor.name);
    const { config, warnings } = quantizationConfig(
      fp8.map(({ tensor }) => tensor.name),
      kept.flatMap((name) => spellings(name, dialect)),
      fp8[0]!.tensor.dtype,
    );
    return { text: withQuantization(text, config), warnings };
  }
  const plain = scales.scaleOf.size > 0 && fp8.length === 0 ? withoutQuantization(text) : text;
  return { text: policy.torchDtype === null ? plain : withDtype(plain, policy.torchDtype), warnings: [] };
}

/** A kept weight listed under one name only is quantised by the library that knows it by the other: it loads noise. */
function spellings(name: string, { renamed }: Dialect): readonly string[] {
  if (renamed === undefined || !name.startsWith(renamed.stored)) return [name];
  return [name, renamed.loaded + name.slice(renamed.stored.length)];
}

async function shardsOf(source: Checkpoint): Promise<Manifest["shards"]> {
  await using sources = new Sources(source.store);
  const shards: { path: string; header: Uint8Array }[] = [];
  for (const { path, header } of source.shards) {
    shards.push({
      path,
      header: await readRange(await sources.source(header.file), header.offset, header.size),
    });
  }
  return shards;
}

/** The plan as a person reads it. */
export function plannedTensors(plan: Plan): readonly PlannedTensor[] {
  return plan.jobs.map(({ tensor, role, origin, sourceDtype }) => {
    const from = origin.moves
      .flatMap(({ of }) => (of === null ? [] : (origin.roles.get(of) ?? [])))
      .map(({ of }) => of);
    return {
      name: tensor.name,
      role: role?.spec.role ?? "scale",
      layer: role?.layer?.index ?? null,
      from: [...new Set(from)].join(", "),
      dtype: tensor.dtype,
      sourceDtype,
      shape: tensor.shape,
      bytes: bytesOf(tensor.dtype, tensor.shape),
    };
  });
}

/** The destination as if it were there: all of it but bytes and side files. */
export function plannedCheckpoint({ source, manifest }: Plan): Checkpoint {
  const { config, dialect } = manifest;
  const tensors = manifest.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape, pieces: [] }));
  return { ...source.checkpoint, config, dialect, tensors, sidecars: [], shards: [], recasts: [] };
}

/** Bytes that running the plan reads: tensors that need their amax first are read twice. */
export function bytesRead(plan: Plan): number {
  const tensors = plan.jobs.reduce((sum, { count, sourceDtype, cast }) => {
    return sum + (count * bitsOf(sourceDtype) * (cast?.scaleTo === undefined ? 1 : 2)) / 8;
  }, 0);
  return plan.placement.copies.reduce((sum, { from }) => sum + from.size, tensors);
}

export function bytesWritten(plan: Plan): number {
  return plan.placement.files.reduce((sum, { size }) => sum + size, 0);
}
