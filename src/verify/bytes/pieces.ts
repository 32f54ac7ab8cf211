/** What the bytes rung reads, in pieces that several processes can share: items of both sides, and copies on one side. */
import { type ModelWithScales, withDecodedValues } from "../../checkpoint/load.ts";
import { bytesOf, countOf } from "../../core/dtype.ts";
import type { Watch } from "../../core/events.ts";
import { findFirstDifference } from "../../core/first-difference.ts";
import { Sources } from "../../core/read.ts";
import { sealFinder } from "../../core/sealed-spans.ts";
import { layerReporter, type MatchedModel, type Replica } from "../../families/model.ts";
import { divideByBytes } from "../../io/tasks/divide.ts";
import type { Task } from "../../io/tasks/task-files.ts";
import type { BandWorker, WorkerPool } from "../../workers/pool.ts";
import type { EqualContent } from "../pairs/equal-digests.ts";
import { type ComparedItem, comparedItem, storedWidth } from "./compared-items.ts";
import { type ComparedContent, ItemComparison, type ItemContext } from "./item-comparison.ts";
import { compareUnusedScales } from "./unused-scales.ts";

export interface BytesOptions {
  readonly a: ModelWithScales;
  readonly b: ModelWithScales;
  readonly pool: WorkerPool;
  /** b was written by this version from a: scales must equal amax / max. Other tools may choose larger scales */
  readonly strictScales: boolean;
  readonly phase: "bytes" | "measure";
  /** comparisons of the same bytes that other processes made; the rung reads only what is not among them */
  readonly known?: Comparisons | undefined;
  /** pairs of tensors that were found equal already; default none */
  readonly equal?: EqualContent | undefined;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** What the rung found when it read both sides, before any of it is judged. */
export interface Comparisons {
  /** by the key of the piece */
  readonly items: ReadonlyMap<string, ComparedContent>;
  /** by the key of the piece: the first element in which a copy differs from its original; -1: none */
  readonly copies: ReadonlyMap<string, number>;
}

const NOTHING_KNOWN: Comparisons = { items: new Map(), copies: new Map() };

/**
 * Compares the share of one task, and judges nothing. The shares of all tasks are all that `compareBytes` reads.
 *
 * @throws as `compareBytes`
 */
export async function compareShare(options: BytesOptions, { index, count }: Task): Promise<Comparisons> {
  await using context = openContext(options);
  const unused = compareUnusedScales(context.a, context.b, options.strictScales);
  const shares = divideByBytes(piecesOf(context, unused).pieces, ({ bytes }) => bytes, count);
  return await comparePieces(context, options, shares[index]!); // a share for each task
}

/** What comparisons of items share, with open files. */
export function openContext({
  strictScales,
  phase,
  equal = new Map(),
  watch,
  signal,
  ...models
}: BytesOptions) {
  const [a, b] = [withDecodedValues(models.a), withDecodedValues(models.b)];
  const seals = { a: sealFinder(a.checkpoint), b: sealFinder(b.checkpoint) };
  const sources = { a: new Sources(a.checkpoint.store), b: new Sources(b.checkpoint.store) };
  const close = async () => {
    await sources.a[Symbol.asyncDispose]();
    await sources.b[Symbol.asyncDispose]();
  };
  const advance = (bytes: number) => watch({ type: "advance", phase, bytes });
  return { a, b, sources, seals, strictScales, equal, advance, signal, [Symbol.asyncDispose]: close };
}

/** An item, as it is read from both sides. */
interface ItemPiece {
  readonly kind: "item";
  /** unique among all pieces */
  readonly key: string;
  readonly bytes: number;
  readonly item: ComparedItem;
}

/** A copy and its original on one side. */
interface CopyPiece extends Omit<ItemPiece, "kind" | "item"> {
  readonly kind: "copy";
  readonly side: "a" | "b";
  readonly replica: Replica;
}

type Piece = ItemPiece | CopyPiece;

/** All that the rung reads, in order of execution; `items` are the roles. */
export function piecesOf({ a, b }: ItemContext, unused: ReturnType<typeof compareUnusedScales>) {
  const items = [...a.roles.values()].map((role) => comparedItem(role, a, b));
  const scales = unused.both.map(({ item }) => item);
  const copies = [...copyPieces("a", a), ...copyPieces("b", b)];
  return { items, pieces: [...[...items, ...scales].map(itemPiece), ...copies] };
}

function copyPieces(side: "a" | "b", { tensors, replicas }: MatchedModel): readonly CopyPiece[] {
  return replicas.map((replica) => {
    const { dtype, shape } = tensors.get(replica.tensor)!; // replicas are stored tensors
    const key = `copy in ${side}: ${replica.tensor}`;
    return { kind: "copy", key, bytes: 2 * bytesOf(dtype, shape), side, replica };
  });
}

export function itemPiece(item: ComparedItem): ItemPiece {
  const { leaf, key, shape, a, b } = item;
  const bytes = countOf(shape) * (storedWidth(a) + storedWidth(b));
  return { kind: "item", key: `${leaf ? "role" : "scale"}: ${key}`, bytes, item };
}

export const isKnown = ({ known = NOTHING_KNOWN }: Pick<BytesOptions, "known">, key: string): boolean =>
  known.items.has(key) || known.copies.has(key);

/** Compares pieces in worker threads, the last item first: forward passes follow, and they find the first layers in the page cache. */
export async function comparePieces(
  context: ItemContext,
  { pool, watch, known = NOTHING_KNOWN }: BytesOptions,
  pieces: readonly Piece[],
): Promise<Comparisons> {
  const reportLayer = layerReporter(context.a, watch);
  const [items, copies] = [new Map<string, ComparedContent>(), new Map<string, number>()];
  await pool.each(
    pieces.filter((piece) => piece.kind === "item").toReversed(),
    async ({ key, bytes, item }, worker) => {
      const earlier = known.items.get(key);
      if (earlier !== undefined) context.advance(bytes);
      items.set(key, earlier ?? (await new ItemComparison(context, worker, item).compare()));
      reportLayer(item.role);
    },
  );
  await pool.each(
    pieces.filter((piece) => piece.kind === "copy"),
    async ({ key, side, replica }, worker) => {
      copies.set(key, known.copies.get(key) ?? (await firstDifferenceIn(context, side, replica, worker)));
    },
  );
  return { items, copies };
}

/** An item with the result of its comparison. */
export interface ItemResult {
  readonly item: ComparedItem;
  readonly result: ComparedContent;
}

/** The results of the items among the pieces, in their order. */
export function resultsIn({ items }: Comparisons, pieces: readonly Piece[]): readonly ItemResult[] {
  return pieces.flatMap(
    (piece) => (piece.kind === "item" ? [{ item: piece.item, result: items.get(piece.key)! }] : []), // each piece has been compared
  );
}

/** Copies of a tensor on other ranks must be equal: a role is read from one rank, so the other rungs do not read the copies. */
async function firstDifferenceIn(
  context: ItemContext,
  side: "a" | "b",
  { tensor, of }: Replica,
  worker: BandWorker,
): Promise<number> {
  const { tensors } = context[side];
  const buffer = worker.buffers[0]!.bytes;
  const [copy, original] = [tensors.get(tensor)!, tensors.get(of)!];
  return await findFirstDifference(copy, original, context.sources[side], buffer, context.signal);
}
