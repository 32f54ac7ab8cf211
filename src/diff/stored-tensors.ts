/** Differences of two checkpoints tensor by tensor, under the names that both store: for formats without a family. */
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { bitsOf, blockElements, countOf, isNumeric, sameShape } from "../core/dtype.ts";
import { bandsOf } from "../core/gather.ts";
import { sha256 } from "../core/hash.ts";
import { extentsOf, Sources } from "../core/read.ts";
import { Difference } from "./difference.ts";
import type { DiffedTensor, DiffReport } from "./report.ts";

/** Size of a band on one side. */
const BAND_BYTES = 2 * 1024 * 1024;

/**
 * Rows of all names of both sides, in the order of `b`, then those of `a` alone. Values of some block types are
 * not decoded: two tensors of such a type are equal or not.
 *
 * @throws the errors of reading
 */
export async function diffStored(
  a: Checkpoint,
  b: Checkpoint,
  signal: AbortSignal | undefined,
): Promise<readonly DiffedTensor[]> {
  const left = new Map(a.tensors.map((tensor) => [tensor.name, tensor]));
  const right = new Map(b.tensors.map((tensor) => [tensor.name, tensor]));
  await using sourcesA = new Sources(a.store);
  await using sourcesB = new Sources(b.store);
  const rows: DiffedTensor[] = [];
  for (const name of new Set([...right.keys(), ...left.keys()])) {
    const [from, to] = [left.get(name), right.get(name)];
    const row = { role: name, layer: null, a: nameOf(from), b: nameOf(to) };
    const measures =
      from === undefined || to === undefined
        ? UNCOMPARED
        : await compare({ tensor: from, sources: sourcesA }, { tensor: to, sources: sourcesB }, signal);
    rows.push({ ...row, ...measures });
  }
  return rows;
}

const nameOf = (tensor: Tensor | undefined): string | null =>
  tensor === undefined ? null : `${tensor.name} (${tensor.dtype})`;

type Measures = Pick<DiffedTensor, "equal" | "maxAbs" | "relL2" | "ulp" | "error">;
const UNCOMPARED: Measures = { equal: false, maxAbs: null, relL2: null, ulp: null };

interface Side {
  readonly tensor: Tensor;
  readonly sources: Sources;
}

async function compare(a: Side, b: Side, signal: AbortSignal | undefined): Promise<Measures> {
  const { dtype: from, shape } = a.tensor;
  const { dtype: to, shape: toShape } = b.tensor;
  if (!sameShape(shape, toShape))
    return { ...UNCOMPARED, error: `[${shape.join(", ")}] / [${toShape.join(", ")}]` };
  const isOpaque = !isNumeric(from) || !isNumeric(to);
  if (isOpaque && from !== to)
    return { ...UNCOMPARED, error: `${from} / ${to}: values of these types are not compared` };
  const difference = isOpaque
    ? null
    : new Difference({ dtype: from, scale: null }, { dtype: to, scale: null }, from === to);
  let equal = true;
  const widest = Math.max(bitsOf(from), bitsOf(to)) / 8;
  for (const band of bandsOf(countOf(shape), widest, BAND_BYTES, blockElements(from) * 64)) {
    signal?.throwIfAborted();
    const [left, right] = await Promise.all([read(a, band.lo, band.hi), read(b, band.lo, band.hi)]);
    difference?.add(left, right);
    equal &&= Buffer.compare(left, right) === 0;
    if (isOpaque && !equal) break;
  }
  return difference === null ? { ...UNCOMPARED, equal } : difference.result();
}

async function read({ tensor, sources }: Side, lo: number, hi: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(((hi - lo) * bitsOf(tensor.dtype)) / 8);
  await sources.read(extentsOf(tensor, lo, hi), bytes);
  return bytes;
}

/** Keys of two headers that differ, as `type value`; a value that is too long to be kept is shown by its digest. */
export async function diffMetadata(a: Checkpoint, b: Checkpoint): Promise<DiffReport["config"]> {
  const [left, right] = [await textsOf(a), await textsOf(b)];
  return [...new Set([...left.keys(), ...right.keys()])].flatMap((key) => {
    const [from, to] = [left.get(key) ?? null, right.get(key) ?? null];
    return from === to ? [] : [{ key, a: from, b: to }];
  });
}

async function textsOf({ metadata = [], store }: Checkpoint): Promise<Map<string, string>> {
  await using files = new Sources(store);
  const texts = new Map<string, string>();
  for (const { key, type, value, count, span } of metadata) {
    const digest = async () => sha256(await files.bytes(span.file, span.offset, span.size));
    const text =
      value === undefined
        ? `of ${count}, sha256:${await digest()}`
        : Array.isArray(value)
          ? `[${value.join(", ")}]`
          : String(value);
    texts.set(key, `${type} ${text}`);
  }
  return texts;
}
