/**
 * Finds the stored tensors of a block by the names of the checkpoint's own dialect. Layers and experts are numbered as
 * each rank numbers them. This file does not use layouts or conversion rules.
 */
import { type Piece, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { stridesOf, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { HeadPairs, Native, OutputRows, TensorPosition, Use } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";

/** Where the stored tensors of a block are: name prefix, pipeline stage, and the use of each tensor. */
export interface BlockNames {
  readonly prefix: string;
  /** alternative prefix of the same block */
  readonly also?: string;
  /** pipeline stage; missing: any stage */
  readonly stage?: number;
  readonly uses: readonly Use[];
  /** tensors to read in place of the stored tensors of these keys */
  readonly replacements?: ReadonlyMap<string, Tensor>;
  /** by key, the stored rows to multiply; elements that other rows make stay as they are. Absent: all rows */
  readonly rows?: ReadonlyMap<string, readonly RowRange[]>;
}

/** Rows [lo, hi) of a stored matrix. */
export interface RowRange {
  readonly lo: number;
  readonly hi: number;
}

/** A stored tensor, and the parts of streams or parameters that its rows make. */
export interface TensorUse {
  readonly tensor: Tensor;
  readonly outputs: readonly OutputRows[];
  /** the element of the input stream that its first column multiplies */
  readonly inputOffset: number;
  readonly pairsIn?: HeadPairs;
}

/** The stored tensors of a checkpoint, by block. */
export class TensorLookup {
  readonly #native: Native;
  readonly #dims: Dims;
  /** name -> tensors of that name, ordered by rank */
  readonly #tensors = new Map<string, Tensor[]>();
  /** how many numbers the names of each pipeline stage give to layers, or to blocks of layers */
  readonly #stages: Readonly<Record<Layer["stack"], readonly number[]>>;
  readonly #experts: number;
  readonly #expertsPerRank: number;

  /** @param experts number of experts of an MoE layer; 0 in dense models */
  constructor(native: Native, dims: Dims, experts: number, tensors: Iterable<Tensor>) {
    this.#native = native;
    this.#dims = dims;
    const inOrder = [...tensors].map(asMatrix).sort((a, b) => rankOrder(a) - rankOrder(b));
    for (const tensor of inOrder) {
      this.#tensors.set(tensor.name, [...(this.#tensors.get(tensor.name) ?? []), tensor]);
    }
    const { main, mtp } = native.prefix;
    this.#stages = {
      main: numbersPerStage(inOrder, main),
      mtp: mtp === undefined ? [] : numbersPerStage(inOrder, mtp),
    };
    this.#experts = experts;
    this.#expertsPerRank =
      experts / inOrder.reduce((most, { rank }) => Math.max(most, (rank?.ep ?? 0) + 1), 1);
  }

  /** The names of a layer's tensors. */
  layer(layer: Layer): BlockNames {
    const { main, also, mtp } = this.#native.prefix;
    return layer.stack === "main"
      ? this.#blockNames(layer.kind, main, layer, also)
      : this.#blockNames(layer.kind, mtp!, layer);
  }

  /** The tensors of a prediction step outside its layers: before its first layer ("mtpStart") or after its last ("mtpEnd"). */
  step(end: "mtpStart" | "mtpEnd", layer: Layer): BlockNames {
    return this.#blockNames(end, this.#native.prefix.step!, layer);
  }

  /** The tensors outside of all layers. */
  outside(kind: "embedding" | "head"): BlockNames {
    return { prefix: "", uses: this.#native.uses[kind] };
  }

  /**
   * The stored tensors of a block that make any of `streams`.
   *
   * @param streams streams or parameters; default all
   * @param expert  expert number, used where tensor names contain one
   */
  parts(place: BlockNames, streams?: readonly string[], expert = 0): readonly TensorUse[] {
    const parts: TensorUse[] = [];
    for (const use of place.uses) {
      const seen = new Set<string>();
      for (const stored of this.#named(place, use, expert)) {
        const tensor = place.replacements?.get(tensorKey(stored)) ?? stored;
        const at: TensorPosition = { tp: tensor.rank?.tp ?? 0, expert, shape: tensor.shape };
        const outputs = use
          .outputs(this.#dims, at)
          .filter(({ to, count }) => count > 0 && streams?.includes(to) !== false);
        const inputOffset = use.inputOffset?.(this.#dims, at) ?? 0;
        const part = JSON.stringify([outputs, inputOffset]);
        if (outputs.length === 0 || seen.has(part)) continue; // a copy on another rank is read once
        seen.add(part);
        const pairsIn = use.pairsIn?.(this.#dims);
        parts.push({ tensor, outputs, inputOffset, ...(pairsIn !== undefined && { pairsIn }) });
      }
    }
    return parts;
  }

  /** Every stored tensor that a block reads, without duplicates. */
  all(place: BlockNames): readonly Tensor[] {
    const tensors = new Set<Tensor>();
    const counts = place.uses.map(({ name }) => (name.includes("{expert}") ? this.#experts : 1));
    for (let expert = 0; expert < Math.max(1, ...counts); expert++) {
      for (const { tensor } of this.parts(place, undefined, expert)) tensors.add(tensor);
    }
    return [...tensors];
  }

  /** The tensors of one use: one for each tensor parallel rank that stores it. */
  #named(
    { prefix, also: otherPrefix, stage }: BlockNames,
    { name, also = [] }: Use,
    expert: number,
  ): readonly Tensor[] {
    const numbered = name.includes("{expert}");
    const ep = numbered ? Math.floor(expert / this.#expertsPerRank) : undefined;
    const local = String(numbered ? expert % this.#expertsPerRank : 0);
    const prefixes = otherPrefix === undefined ? [prefix] : [prefix, otherPrefix];
    const spellings = prefixes.flatMap((before) => [name, ...also].map((suffix) => before + suffix));
    for (const spelling of spellings) {
      const found = new Map<number, Tensor>();
      for (const tensor of this.#tensors.get(spelling.replace("{expert}", local)) ?? []) {
        const { rank } = tensor;
        const elsewhere =
          rank !== undefined &&
          ((stage !== undefined && rank.pp !== stage) || (ep !== undefined && rank.ep !== ep));
        if (!elsewhere && !found.has(rank?.tp ?? 0)) found.set(rank?.tp ?? 0, tensor);
      }
      if (found.size > 0) return [...found.values()];
    }
    return [];
  }

  #blockNames(
    kind: string,
    prefix: string,
    { stack, index, inner, of, after = 0 }: Layer,
    also?: string,
  ): BlockNames {
    const numbersBlocks = prefix.includes("{outer}") || prefix.includes("{after}");
    let [stage, local] = [0, numbersBlocks ? Math.floor(index / of) : index];
    const counts = this.#stages[stack];
    for (; stage + 1 < counts.length && local >= counts[stage]!; stage++) local -= counts[stage]!;
    const numbers = { layer: local, outer: local, inner, after: after + local };
    const fill = (text: string) =>
      text.replace(/\{(layer|outer|inner|after)\}/g, (_, name: keyof typeof numbers) =>
        String(numbers[name]),
      );
    const other = also === undefined ? {} : { also: fill(also) };
    return { prefix: fill(prefix), ...other, stage, uses: this.#usesOf(kind) };
  }

  #usesOf(kind: string): readonly Use[] {
    const { dialect, uses } = this.#native;
    const found = uses[kind];
    if (found !== undefined) return found;
    throw new IsologitError("INTERNAL", `the dialect ${dialect} does not list the tensors of ${kind} layers`);
  }
}

/** A stack of matrices [n, rows, columns] as one matrix [n * rows, columns]; other tensors unchanged. */
function asMatrix(tensor: Tensor): Tensor {
  const [count, rows, columns] = tensor.shape;
  if (tensor.shape.length !== 3 || rows === 1) return tensor;
  const pieces = tensor.pieces.flatMap((piece): readonly Piece[] => {
    const [first, top, left] = piece.start as readonly [number, number, number];
    const [matrices, height, width] = piece.shape as readonly [number, number, number];
    if (height === rows && piece.strides === undefined) {
      return [{ ...piece, start: [first * rows + top, left], shape: [matrices * rows, width] }];
    }
    const [next, ...strides] = piece.strides ?? stridesOf(piece.shape);
    return Array.from({ length: matrices }, (_, i) => ({
      file: piece.file,
      offset: piece.offset + i * next! * widthOf(tensor.dtype),
      start: [(first + i) * rows! + top, left],
      shape: [height, width],
      strides,
    }));
  });
  return { ...tensor, shape: [count! * rows!, columns!], pieces };
}

/** Sort key: by tensor parallel rank, then pipeline rank, then expert rank. */
function rankOrder({ rank }: Tensor): number {
  return rank === undefined ? 0 : (rank.tp * 2 ** 16 + rank.pp) * 2 ** 16 + rank.ep;
}

/** How many numbers each pipeline stage uses: one more than the largest number after the prefix. */
function numbersPerStage(tensors: readonly Tensor[], prefix: string): readonly number[] {
  const start = prefix.slice(0, prefix.indexOf("{"));
  const counts: number[] = [];
  for (const { name, rank } of tensors) {
    const stage = rank?.pp ?? 0;
    counts[stage] ??= 0;
    const number = name.startsWith(start) ? /^\d+/.exec(name.slice(start.length)) : null;
    if (number !== null) counts[stage] = Math.max(counts[stage]!, Number(number[0]) + 1);
  }
  return counts;
}

/** @param where the tensor or block that lacks it */
export function missingPart(part: string, where: string): IsologitError {
  const message = `the checkpoint lacks a part of ${part} that the forward pass needs`;
  return new IsologitError("TENSOR_MISSING", message, { tensor: where });
}
