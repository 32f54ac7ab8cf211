/** The content digests of one checkpoint: a leaf for each role, and the content root of all leaves. */

import { type LoadedModel, type ModelWithScales, withDecodedValues } from "../checkpoint/load.ts";
import { refuseDamaged, sealOfElements } from "../checkpoint/tensor-digests.ts";
import { contentRoot, type Leaf } from "../core/content-root.ts";
import { bytesOf, countOf, widthOf } from "../core/dtype.ts";
import { withLocation } from "../core/errors.ts";

import { bandsOf, type ElementSource, readElements, wholeTensorOf } from "../core/gather.ts";
import { Sources } from "../core/read.ts";
import { sealFinder } from "../core/sealed-spans.ts";
import type { Role } from "../families/model.ts";
import { leafOf, leafSide, storedWidth } from "../verify/bytes/compared-items.ts";
import { pipelineBands } from "../workers/pipeline.ts";
import type { WorkerPool } from "../workers/pool.ts";

export interface ContentDigests {
  readonly root: string;
  readonly leaves: readonly Leaf[];
}

/** Bytes that `digestContent` reads. */
export function contentBytes(model: LoadedModel): number {
  return [...model.roles.values()].reduce((sum, { key, shape }) => {
    const { dtype } = model.tensors.get(model.roleSources.get(key)![0]!.of!)!;
    return sum + bytesOf(dtype, shape);
  }, 0);
}

/** The SHA-256 of the first `count` elements of a stored tensor, hex, if another step has computed it. */
type KnownDigest = (tensor: string, count: number) => string | undefined;

/**
 * Reads every role and computes its digest.
 *
 * @param known digests that are not computed again: their roles are not read
 * @throws DIGEST_MISMATCH: the bytes of a tensor do not match the digest that the format stores
 */
export async function digestContent(
  model: ModelWithScales,
  pool: WorkerPool,
  advance: (bytes: number) => void,
  signal: AbortSignal | undefined,
  known: KnownDigest = () => undefined,
): Promise<ContentDigests> {
  const decoded = withDecodedValues(model);
  await using sources = new Sources(decoded.checkpoint.store);
  const findSeal = sealFinder(model.checkpoint);
  const leaves: Leaf[] = [];
  await pool.each([...model.roles.values()], async (role, worker) => {
    const side = leafSide(role, decoded);
    const count = countOf(role.shape);
    const digest = async (source: ElementSource, width: number, counted: (elements: number) => void) => {
      await pipelineBands(
        worker,
        bandsOf(count, width, worker.buffers[0]!.bytes.byteLength),
        async (band, buffer) => {
          signal?.throwIfAborted();
          const target = buffer.bytes.subarray(0, (band.hi - band.lo) * width);
          await readElements(source, band, decoded.tensors, width, sources, target, signal).catch((error) => {
            throw withLocation(error, { tensor: side.tensor });
          });
        },
        async ({ lo, hi }, buffer) => {
          await worker.call({ op: "band", sealed: false, at: buffer.at, size: (hi - lo) * width });
          counted(hi - lo);
        },
      );
      return (await worker.call({ op: "finish" })).sha256;
    };
    const tensor = wholeTensor(model, role, side);
    const sha256 =
      (tensor === undefined ? undefined : known(tensor, count)) ??
      (await digest(side.elementSource, widthOf(side.dtype), (n) => advance(n * storedWidth(side))));
    const codes = side.decoded?.codes;
    const seal = sealOfElements(codes ?? side.elementSource, count, decoded.tensors, findSeal);
    if (seal !== undefined) {
      const stored = codes === undefined ? sha256 : await digest(codes, storedWidth(side), () => {});
      await refuseDamaged(seal, { sha256: stored }, sources, signal);
    }
    leaves.push(leafOf(role, side, sha256));
  });
  return { root: contentRoot(model.settings, leaves), leaves };
}

/** By `tensorKey`: the stored tensors whose first elements are a role, with their number. `known` is asked for these. */
export function wholeTensors(model: ModelWithScales): ReadonlyMap<string, number> {
  const decoded = withDecodedValues(model);
  return new Map(
    [...model.roles.values()].flatMap((role): [string, number][] => {
      const tensor = wholeTensor(model, role, leafSide(role, decoded));
      return tensor === undefined ? [] : [[tensor, countOf(role.shape)]];
    }),
  );
}

/** The stored tensor whose first elements are the leaf of this role, if there is one. It stores values, and no function of them. */
function wholeTensor(
  { transformed }: ModelWithScales,
  { shape }: Role,
  { elementSource, decoded }: ReturnType<typeof leafSide>,
): string | undefined {
  if (decoded !== undefined) return undefined;
  const key = wholeTensorOf(elementSource, countOf(shape));
  return key === undefined || transformed.has(key) ? undefined : key;
}
