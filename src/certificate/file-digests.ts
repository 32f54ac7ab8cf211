/**
 * Every byte of a checkpoint that no content root knows: headers, indexes, configs, side files, padding, scales that
 * nothing reads. Together with the root nothing is left in which a byte could change unseen.
 */
import { CERTIFICATE_FILE, type Span, type Tensor } from "../core/checkpoint.ts";
import { bitsOf, countOf, stridesOf } from "../core/dtype.ts";
import { extentsOf } from "../core/read.ts";
import type { Matched } from "../families/model.ts";
import { digestExcept } from "../io/digest.ts";

export interface FileDigest {
  /** relative to the checkpoint; "" where it is one file, which may be renamed */
  readonly path: string;
  /** bytes, without a certificate that follows */
  readonly size: number;
  /** SHA-256 of the bytes outside the elements that the content root covers */
  readonly sha256: string;
}

/** @param trailer the certificate's span in a packed file: it, and what follows it, is not the checkpoint's */
export async function digestFilesExceptRoles(
  model: Matched,
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

/** By file and in order, where the elements lie that roles are made of; a tensor of which a part is padding is not. */
function insideOf({ tensors, roleSources }: Matched): ReadonlyMap<string, readonly Span[]> {
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
