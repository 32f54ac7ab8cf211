/** `diff`: compares two checkpoints of any formats and dialects role by role, and their configs and side files. */

import type { FindingsOptions } from "../check/options.ts";
import {
  decodeWeights,
  isSameForm,
  loadModelWithScales,
  type ModelWithScales,
  storedRole,
} from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { refuseDamaged, refuseDamagedSpan, sealOfElements } from "../checkpoint/tensor-digests.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { countOf, type DType, isNumeric, type NumericDType, sameShape, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { type Band, bandsOf, gatherExtents, roleSource } from "../core/gather.ts";
import { Sources } from "../core/read.ts";
import { type FindSeal, sealFinder } from "../core/sealed-spans.ts";
import { Difference } from "../diff/difference.ts";
import { diffConfigs, diffSidecars } from "../diff/files.ts";
import type { DiffedTensor, DiffReport } from "../diff/report.ts";
import { diffMetadata, diffStored } from "../diff/stored-tensors.ts";
import type { Role } from "../families/model.ts";
import { memoryOf } from "../inference/machine.ts";
import { pluginsReport } from "../plugins/plugin.ts";
import { Digest } from "../workers/digest.ts";

export interface DiffOptions extends Omit<FindingsOptions, "backend"> {
  /** compare only the weights, and no settings and side files */
  readonly weights?: boolean;
}

/** Size of a band; memory holds the bands of both sides and their values. */
const BAND_BYTES = 4 * 1024 * 1024;

/**
 * Compares two checkpoints role by role, or two GGUF tensor by tensor. No forward pass runs.
 *
 * @param a path or `hf://` address of a checkpoint
 * @param b path or `hf://` address of a checkpoint of any format and dialect
 * @param options with `keepGoing`, damage in the bytes of a tensor is an `error` of that tensor in the report
 * @returns the distance of each tensor, the differences of the configs and of the side files
 * @throws codes of exit status 2, 3 and 4
 * @example
 * const { equal, tensors } = await diff("./nemotron-h-8b", "model.isologit");
 */
export async function diff(a: string, b: string, options: DiffOptions = {}): Promise<DiffReport> {
  const how = { ...options, makeFiles: false };
  const [openA, openB] = [await openCheckpoint(a, how), await openCheckpoint(b, how)];
  if (openA.format === "gguf" && openB.format === "gguf") return await diffFiles(openA, openB, options);
  const [left, right] = [
    await loadModelWithScales(openA, options),
    await loadModelWithScales(openB, options),
  ];
  const [valuesA, valuesB] = [decodeWeights(left), decodeWeights(right)];
  await using sourcesA = new Sources(valuesA.checkpoint.store);
  await using sourcesB = new Sources(valuesB.checkpoint.store);
  const sides = [
    { side: left, values: valuesA, sources: sourcesA, find: sealFinder(left.checkpoint) },
    { side: right, values: valuesB, sources: sourcesB, find: sealFinder(right.checkpoint) },
  ] as const;
  const roles = new Map([...right.roles, ...left.roles]);
  const tensors: DiffedTensor[] = [];
  for (const role of roles.values()) tensors.push(await diffRole(role.key, sides, options));
  const { weights = false } = options;
  const config = weights ? [] : diffConfigs(left, right);
  const sidecars = weights ? [] : await diffSidecars(left, right);
  const equal = tensors.every((tensor) => tensor.equal) && config.length === 0 && sidecars.length === 0;
  return { equal, tensors, config, sidecars, ...pluginsReport(options) };
}

/** Two checkpoints of a format without a family: tensors are compared by their names, and keys in place of settings. */
async function diffFiles(a: Checkpoint, b: Checkpoint, options: DiffOptions): Promise<DiffReport> {
  const tensors = await diffStored(a, b, options.signal);
  const config = options.weights === true ? [] : await diffMetadata(a, b);
  const equal = tensors.every((tensor) => tensor.equal) && config.length === 0;
  return { equal, tensors, config, sidecars: [], ...pluginsReport(options) };
}

interface Reading {
  /** as stored, for names */
  readonly side: ModelWithScales;
  /** result of `decodeWeights` */
  readonly values: ModelWithScales;
  readonly sources: Sources;
  readonly find: FindSeal;
}

async function diffRole(
  key: string,
  [a, b]: readonly [Reading, Reading],
  options: DiffOptions,
): Promise<DiffedTensor> {
  const [left, right] = [a.side.roles.get(key), b.side.roles.get(key)];
  const { spec, layer } = (left ?? right)!;
  const row = {
    role: spec.role,
    layer: layer?.index ?? null,
    a: left === undefined ? null : storedName(a.side, left),
    b: right === undefined ? null : storedName(b.side, right),
    equal: false,
    maxAbs: null,
    relL2: null,
    ulp: null,
  };
  if (left === undefined || right === undefined) return row;
  if (!sameShape(left.shape, right.shape)) {
    return { ...row, error: `[${left.shape.join(", ")}] / [${right.shape.join(", ")}]` };
  }
  try {
    return { ...row, ...(await compareRole(left, a, b, options)) };
  } catch (error) {
    const damage = error instanceof IsologitError && error.exit === 3;
    if (!damage || options.keepGoing !== true) throw error;
    return { ...row, error: `${error.code}  ${error.message}` };
  }
}

function storedName(side: ModelWithScales, role: Role): string {
  const { tensor, dtype } = storedRole(side, role);
  return `${tensor} (${dtype})`;
}

async function compareRole(role: Role, a: Reading, b: Reading, options: DiffOptions) {
  const [from, to] = [storedRole(a.values, role), storedRole(b.values, role)];
  const count = countOf(role.shape);
  const difference = new Difference(
    { dtype: numericDType(from), scale: scaleIn(a.values, from.tensor) },
    { dtype: numericDType(to), scale: scaleIn(b.values, to.tensor) },
    isSameForm(storedRole(a.side, role), storedRole(b.side, role)),
  );
  const [width, toWidth] = [widthOf(from.dtype), widthOf(to.dtype)];
  const sides = [a, b].map((reading) => reader(role, reading, options));
  const budget = Math.min(BAND_BYTES, memoryOf(options) / 4);
  for (const band of bandsOf(count, width + toWidth, budget)) {
    options.signal?.throwIfAborted();
    const [left, right] = await Promise.all([sides[0]!.read(band, width), sides[1]!.read(band, toWidth)]);
    difference.add(left, right);
  }
  for (const side of sides) await side.refuseDamaged();
  return difference.result();
}

/** The scale of codes; null for values that are stored or decoded as they are. */
function scaleIn({ scales, scaleValues }: ModelWithScales, tensor: string): number | null {
  return scales.scaleOf.has(tensor) ? (scaleValues.get(tensor)?.[0] ?? null) : null;
}

/**
 * Reads a role as one side stores it, or its decoded values, band after band. After the last band, the digest of what is
 * stored is compared with the digest that the format stores; codes of decoded values are read once more for that.
 */
function reader(role: Role, { side: stored, values: side, sources, find }: Reading, { signal }: DiffOptions) {
  const count = countOf(role.shape);
  const origin = roleSource(role.key, count, side.roleSources);
  const seal = sealOfElements(origin, count, stored.tensors, find);
  const isDecoded = storedRole(side, role).dtype !== storedRole(stored, role).dtype;
  const digest = new Digest();
  return {
    async read(band: Band, width: number): Promise<Uint8Array> {
      const bytes = new Uint8Array((band.hi - band.lo) * width);
      await sources.read(gatherExtents(origin, band, side.tensors, width), bytes, signal);
      if (seal !== undefined && !isDecoded) digest.update(bytes, true);
      return bytes;
    },
    async refuseDamaged(): Promise<void> {
      if (seal === undefined) return;
      if (isDecoded) await refuseDamagedSpan(seal, sources, signal);
      else await refuseDamaged(seal, digest.result(), sources, signal);
    },
  };
}

function numericDType({ dtype, tensor }: { dtype: DType; tensor: string }): NumericDType {
  if (isNumeric(dtype)) return dtype;
  throw new IsologitError("UNSUPPORTED", `values of ${dtype} are not compared`, { tensor });
}
