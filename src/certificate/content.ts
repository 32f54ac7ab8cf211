/** The content of one checkpoint: a leaf a role, and the root they make. */

import { refuseDamaged, sealOf } from "../checkpoint/tensor-digests.ts";
import { contentRoot, type Leaf } from "../core/content-root.ts";
import { bytesOf, countOf, widthOf } from "../core/dtype.ts";
import { locate } from "../core/errors.ts";
import { bandsOf, gather } from "../core/mapping/gather.ts";
import { Sources } from "../core/read.ts";
import { sealFinder } from "../core/sealed-spans.ts";
import type { Paired, Ready } from "../inference/model-runner.ts";
import { halfOf } from "../verify/bytes/compared-items.ts";
import { throughSlots } from "../workers/pipeline.ts";
import type { Pool } from "../workers/pool.ts";

export interface Content {
  readonly root: string;
  readonly leaves: readonly Leaf[];
}

/** Bytes that `contentOf` reads. */
export function contentBytes({ matched }: Paired): number {
  return [...matched.roles.values()].reduce((sum, { key, shape }) => {
    const { dtype } = matched.tensors.get(matched.origin.get(key)![0]!.of!)!;
    return sum + bytesOf(dtype, shape);
  }, 0);
}

/** @throws DIGEST_MISMATCH where a tensor is not what the checkpoint's format has sealed */
export async function contentOf(
  side: Ready,
  pool: Pool,
  advance: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<Content> {
  const { matched } = side;
  await using sources = new Sources(matched.checkpoint.store);
  const findSeal = sealFinder(matched.checkpoint);
  const leaves: Leaf[] = [];
  await pool.each([...matched.roles.values()], async (role, lane) => {
    const { tensor, dtype, scales, origin } = halfOf(role, side);
    const width = widthOf(dtype);
    await throughSlots(
      lane,
      bandsOf(countOf(role.shape), width, lane.slots[0]!.bytes.byteLength),
      async (band, slot) => {
        signal?.throwIfAborted();
        const target = slot.bytes.subarray(0, (band.hi - band.lo) * width);
        await sources.read(gather(origin, band, matched.tensors, width), target, signal).catch((error) => {
          throw locate(error, { tensor });
        });
      },
      async ({ lo, hi }, slot) => {
        await lane.call({ op: "band", sealed: false, at: slot.at, size: (hi - lo) * width });
        advance((hi - lo) * width);
      },
    );
    const { sha256 } = await lane.call({ op: "finish" });
    const seal = sealOf(origin, countOf(role.shape), matched.tensors, findSeal);
    await refuseDamaged(seal, { sha256 }, sources, signal);
    leaves.push({ key: role.key, dtype, shape: role.shape, sha256, scale: scales });
  });
  return { root: contentRoot(matched.settings, leaves), leaves };
}
