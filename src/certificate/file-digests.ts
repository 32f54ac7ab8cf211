/**
 * Digests of the bytes that the content root does not cover: headers, indexes, configs, side files, padding, unused
 * scales. The root and these digests together detect a change of any byte.
 */
import { CERTIFICATE_FILE, type Span, type Tensor } from "../core/checkpoint.ts";
import { bitsOf, countOf, stridesOf } from "../core/dtype.ts";
import { extentsOf } from "../core/read.ts";
import type { MatchedModel } from "../families/model.ts";
import { digestExcept } from "../io/digest.ts";

interface FileDigest {
  /** relative to the checkpoint; "" for a checkpoint of one file, which may be renamed */
  readonly path: string;
  /** bytes, without a certificate at the end */
  readonly size: number;
  /** SHA-256 of the bytes outside the elements that the content root covers */
  readonly sha256: string;
}

/** @param trailer span of the certificate in a packed file; the span and the bytes after it do not belong to the checkpoint */
export async function digestFilesExceptRoles(
  model: MatchedModel,
  trailer: Span | undefined,
  signal: AbortSignal | undefined,
): Promise<readonly FileDigest[]> {
  const { store, format } = model.checkpoint;
  const inside = insideOf(model);
  const files = (await store.list()).filter(({ path }) => path !== CERTIFICATE_FILE);
  const alone = files.length === 1 && format !== "hf";
  const digests: FileDigest[] = [];
  for (const { path, size } of files) {
    await using source = await store.open(path);
    const end = trailer?.file === path ? trailer.offset : size;
    const sha256 = await digestExcept(source, end, inside.get(path) ?? [], signal);
    digests.push({ path: alone ? "" : path, size: end, sha256 });
  }
  return digests;
}

/** Spans of the elements of roles, by file and sorted; without tensors that have padding. */
function insideOf({ tensors, roleSources }: MatchedModel): ReadonlyMap<string, readonly Span[]> {
  const used = new Map<string, number>();
  for (const move of [...roleSources.values()].flat()) {
    const name = move.of!;
    used.set(name, (used.get(name) ?? 0) + countOf(move.size));
  }
  const spans = new Map<string, Span[]>();
  for (const [name, count] of used) {
    const tensor = tensors.get(name)!;
    if (count !== countOf(tensor.shape)) continue;
    for (const span of spansOf(tensor)) {
      const known = spans.get(span.file);
      if (known === undefined) spans.set(span.file, [span]);
      else known.push(span);
    }
  }
  for (const list of spans.values()) list.sort((a, b) => a.offset - b.offset);
  return spans;
}

function spansOf(tensor: Tensor): readonly Span[] {
  return tensor.pieces.flatMap((piece) => {
    const { file, offset, shape, strides } = piece;
    const dense = stridesOf(shape).every((stride, axis) => (strides?.[axis] ?? stride) === stride);
    if (dense) return [{ file, offset, size: (countOf(shape) * bitsOf(tensor.dtype)) / 8 }];
    return extentsOf({ ...tensor, pieces: [piece] }, 0, countOf(tensor.shape));
  });
}
