/** Compares the source of a conversion with the digests in its format, while it is read. */

import { storedKey } from "../../checkpoint/load.ts";
import { type ComputedDigests, refuseDamaged, sealOfElements } from "../../checkpoint/tensor-digests.ts";
import type { SealedSpan, Span, Tensor } from "../../core/checkpoint.ts";
import { bandsOf } from "../../core/gather.ts";
import type { Sources } from "../../core/read.ts";
import { type FindSeal, sealFinder, spanOf } from "../../core/sealed-spans.ts";
import type { MatchedModel } from "../../families/model.ts";
import { pipelineBands } from "../../workers/pipeline.ts";
import type { ConversionRun, Job } from "../types.ts";

export class SealedSource {
  readonly #source: MatchedModel;
  readonly #sources: Sources;
  readonly #signal: AbortSignal | undefined;
  readonly #find: FindSeal;
  /** seals that have been compared */
  readonly #compared = new Set<SealedSpan>();

  constructor(source: MatchedModel, sources: Sources, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#sources = sources;
    this.#signal = signal;
    this.#find = sealFinder(source.checkpoint);
  }

  /** The seal of the stored tensor that a job reads from end to end; undefined if it reads no whole tensor. */
  sealOf({ elementSource, count }: Job): SealedSpan | undefined {
    return sealOfElements(elementSource, count, this.#source.tensors, this.#find);
  }

  sealAt(span: Span | undefined): SealedSpan | undefined {
    return span === undefined ? undefined : this.#find(span);
  }

  /** @throws DIGEST_MISMATCH */
  async refuse(seal: SealedSpan | undefined, computed: ComputedDigests): Promise<void> {
    if (seal === undefined) return;
    await refuseDamaged(seal, computed, this.#sources, this.#signal);
    this.#compared.add(seal);
  }

  /** SHA-256 seals of the tensors that these jobs read, as far as they have not been compared. */
  uncompared(jobs: readonly Job[]): readonly SealedSpan[] {
    const tensors = new Set(jobs.flatMap((job) => tensorsRead(job, this.#source.tensors)));
    const seals = [...tensors].flatMap((tensor) => this.sealAt(spanOf(tensor)) ?? []);
    return seals.filter((seal) => seal.sha256 !== undefined && !this.#compared.has(seal));
  }
}

function tensorsRead(
  { elementSource, multiplied }: Job,
  tensors: ReadonlyMap<string, Tensor>,
): readonly Tensor[] {
  const { moves, roles: sources } = multiplied ?? elementSource;
  const roles = new Set(moves.flatMap(({ of }) => of ?? []));
  const names = [...roles].flatMap((role) => (sources.get(role) ?? []).map(({ of }) => of!));
  return [...new Set(names.map(storedKey))].map((name) => tensors.get(name)!); // scales are compared as they decode
}

/**
 * Reads sealed tensors that no job read from end to end (parts of them go to several tensors) once more, only for their
 * digests.
 *
 * @throws DIGEST_MISMATCH
 */
export async function readUncomparedTensors(
  { plan, pool, signal }: ConversionRun,
  sources: Sources,
  held: SealedSource,
): Promise<void> {
  await pool.each(held.uncompared(plan.jobs), async (seal, worker) => {
    await pipelineBands(
      worker,
      bandsOf(seal.size, 1, worker.buffers[0]!.bytes.byteLength),
      async ({ lo, hi }, { bytes }) => {
        signal?.throwIfAborted();
        const target = bytes.subarray(0, hi - lo);
        await sources.use(seal.file, (source) => source.readInto(target, seal.offset + lo, signal));
      },
      async ({ lo, hi }, { at }) => {
        await worker.call({ op: "band", at, size: hi - lo, sealed: false });
      },
    );
    const { sha256 } = await worker.call({ op: "finish" });
    await held.refuse(seal, { sha256 });
  });
}
