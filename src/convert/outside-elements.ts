/**
 * The bytes of the staged files apart from the model's elements: headers, side files, indexes, scales, padded tensors,
 * seals, and the zeros between them. No content root covers them, so a conversion compares them with what it wrote.
 */
import { createHash } from "node:crypto";
import type { TensorDigests } from "../../formats/format.ts";
import { type Span, tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { sha256 } from "../core/hash.ts";
import type { Store } from "../core/io.ts";
import { Sources } from "../core/read.ts";
import type { Job, Plan } from "./types.ts";

/** Bytes of one staged file; `file` is its path in the placement. */
export interface OutsideSpan extends Span {
  readonly sha256: string;
}

/** Bytes read at a time. */
const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * @param sealed    digests made during writing: of tensors, and of copied side files under `copyNames`
 * @param seals     the bytes of `placement.seals`, in their order
 */
export function spansOutsideTensors(
  plan: Plan,
  sealed: ReadonlyMap<string, TensorDigests>,
  copyNames: readonly string[],
  seals: readonly Uint8Array[],
): readonly OutsideSpan[] {
  const { placement, jobs } = plan;
  const covered = new Set(jobs.filter(isCovered).map(({ tensor }) => tensorKey(tensor)));
  const spans = spansOf(plan);
  return [
    ...placement.inline.map(({ bytes }, i) => ({ ...spans.inline[i]!, sha256: sha256(bytes) })),
    ...spans.copies.map((span, i) => ({ ...span, sha256: sealed.get(copyNames[i]!)!.sha256 })),
    ...placement.tensors.flatMap(({ name }, i) =>
      covered.has(name) ? [] : [{ ...spans.tensors[i]!, sha256: sealed.get(name)!.sha256 }],
    ),
    ...placement.seals.map((span, i) => ({ ...span, sha256: sha256(seals[i]!) })),
    ...gapsIn(plan).map((span) => ({ ...span, sha256: sha256(new Uint8Array(span.size)) })),
  ];
}

/**
 * Whether the comparison with the source reads all elements: each belongs to a role. Of products it reads the values, which are
 * rounded.
 */
function isCovered({ role, elementSource, multiplied }: Job): boolean {
  return role !== null && multiplied === undefined && elementSource.moves.every(({ of }) => of !== null);
}

/** Spans that no part of the plan covers: zeros, for alignment. */
export function gapsIn(plan: Plan): readonly Span[] {
  const { inline, copies, tensors } = spansOf(plan);
  const byFile = new Map<string, Span[]>(plan.placement.files.map(({ path }) => [path, []]));
  for (const span of [...inline, ...copies, ...tensors, ...plan.placement.seals]) {
    byFile.get(span.file)!.push(span); // each span is in a file of the placement
  }
  return plan.placement.files.flatMap(({ path, size }) => {
    const spans = byFile.get(path)!.sort((a, b) => a.offset - b.offset);
    let at = 0;
    const gaps: Span[] = [];
    for (const span of [...spans, { file: path, offset: size, size: 0 }]) {
      if (span.offset > at) gaps.push({ file: path, offset: at, size: span.offset - at });
      at = Math.max(at, span.offset + span.size);
    }
    return gaps;
  });
}

function spansOf({ placement, manifest }: Plan): Record<"inline" | "copies" | "tensors", readonly Span[]> {
  const sizes = new Map(
    manifest.tensors.map((tensor) => [tensorKey(tensor), bytesOf(tensor.dtype, tensor.shape)]),
  );
  return {
    inline: placement.inline.map(({ file, offset, bytes }) => ({ file, offset, size: bytes.byteLength })),
    copies: placement.copies.map(({ file, offset, from }) => ({ file, offset, size: from.size })),
    tensors: placement.tensors.map(({ name, file, offset }) => ({ file, offset, size: sizes.get(name)! })),
  };
}

/** Files whose bytes differ from what was written. */
export async function filesThatDiffer(
  store: Store,
  spans: readonly OutsideSpan[],
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  await using sources = new Sources(store);
  const differing = new Set<string>();
  for (const { file, offset, size, sha256 } of spans) {
    const digest = await sources.use(file, async (source) => {
      const hash = createHash("sha256");
      for (let at = 0; at < size; at += CHUNK_BYTES) {
        const bytes = new Uint8Array(Math.min(CHUNK_BYTES, size - at));
        await source.readInto(bytes, offset + at, signal);
        hash.update(bytes);
      }
      return hash.digest("hex");
    });
    if (digest !== sha256) differing.add(file);
  }
  return [...differing];
}
