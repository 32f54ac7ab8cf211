/** The content digests of one checkpoint: a leaf for each role, and the content root of all leaves. */

import type { LoadedModel, ModelWithScales } from "../checkpoint/load.ts";
import { refuseDamaged, sealOfElements } from "../checkpoint/tensor-digests.ts";
import { contentRoot, type Leaf } from "../core/content-root.ts";
import { bytesOf, countOf, widthOf } from "../core/dtype.ts";
import { withLocation } from "../core/errors.ts";
import { bandsOf, gatherExtents } from "../core/gather.ts";
import { Sources } from "../core/read.ts";
import { sealFinder } from "../core/sealed-spans.ts";
import { comparedRole } from "../verify/bytes/compared-items.ts";
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

/**
 * Reads every role and computes its digest.
 *
 * @throws DIGEST_MISMATCH: the bytes of a tensor do not match the digest that the format stores
 */
export async function digestContent(
  model: ModelWithScales,
  pool: WorkerPool,
  advance: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<ContentDigests> {
  await using sources = new Sources(model.checkpoint.store);
  const findSeal = sealFinder(model.checkpoint);
  const leaves: Leaf[] = [];
  await pool.each([...model.roles.values()], async (role, worker) => {
    const { tensor, dtype, scales, elementSource } = comparedRole(role, model);
    const width = widthOf(dtype);
    await pipelineBands(
      worker,
      bandsOf(countOf(role.shape), width, worker.buffers[0]!.bytes.byteLength),
      async (band, buffer) => {
        signal?.throwIfAborted();
        const target = buffer.bytes.subarray(0, (band.hi - band.lo) * width);
        await sources
          .read(gatherExtents(elementSource, band, model.tensors, width), target, signal)
          .catch((error) => {
            throw withLocation(error, { tensor });
          });
      },
      async ({ lo, hi }, buffer) => {
        await worker.call({ op: "band", sealed: false, at: buffer.at, size: (hi - lo) * width });
        advance((hi - lo) * width);
      },
    );
    const { sha256 } = await worker.call({ op: "finish" });
    const seal = sealOfElements(elementSource, countOf(role.shape), model.tensors, findSeal);
    await refuseDamaged(seal, { sha256 }, sources, signal);
    leaves.push({ key: role.key, dtype, shape: role.shape, sha256, scale: scales });
  });
  return { root: contentRoot(model.settings, leaves), leaves };
}
