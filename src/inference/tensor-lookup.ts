/**
 * Where a checkpoint keeps what a block needs, by the names of its own dialect: layers and experts counted as each rank
 * counts them, ranks side by side. No layout and no rule is known here.
 */
import { type Piece, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { stridesOf, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Native, OutputRows, TensorPosition, Use } from "../families/forward.ts";
import type { Dims, Layer } from "../families/structure.ts";

/** A block's stored tensors: what their names begin with, on which pipeline stage, and what each is used for. */
export interface BlockNames {
  readonly prefix: string;
  /** another spelling of the same */
  readonly also?: string;
  /** absent: whichever has them */
  readonly stage?: number;
  readonly uses: readonly Use[];
  /** read in place of the stored tensors of these keys */
  readonly instead?: ReadonlyMap<string, Tensor>;
}

/** A stored tensor and what a stream or parameter asks of it. */
export interface TensorUse {
  readonly tensor: Tensor;
  readonly outputs: readonly OutputRows[];
  /** the element of the input stream that its first column multiplies */
  readonly inputOffset: number;
}

export class TensorLookup {
  readonly #native: Native;
  readonly #dims: Dims;
  /** by name, in the order of ranks */
  readonly #tensors = new Map<string, Tensor[]>();
  /** layers, or prediction steps, that each pipeline stage has */
  readonly #stages: Readonly<Record<Layer["stack"], readonly number[]>>;
  readonly #experts: number;
  readonly #expertsPerRank: number;

  /** @param experts of a layer that has any */
  constructor(native: Native, dims: Dims, experts: number, tensors: Iterable<Tensor>) {
    this.#native = native;
    this.#dims = dims;
    const inOrder = [...tensors].map(asMatrix).sort((a, b) => order(a) - order(b));
    for (const tensor of inOrder) {
      this.#tensors.set(tensor.name, [...(this.#tensors.get(tensor.name) ?? []), tensor]);
    }
    this.#stages = { main: stages(inOrder, native.prefix.main), mtp: stages(inOrder, native.prefix.mtp) };
    this.#experts = experts;
    this.#expertsPerRank =
      experts / inOrder.reduce((most, { rank }) => Math.max(most, (rank?.ep ?? 0) + 1), 1);
  }

  layer(layer: Layer): BlockNames {
    const { main, also, mtp } = this.#native.prefix;
    return layer.stack === "main"
      ? this.#place(layer.kind, main, layer, also)
      : this.#place(layer.kind, mtp, layer);
  }

  /** What a prediction step has of its own, by its first ("mtpStart") or last ("mtpEnd") layer. */
  step(end: "mtpStart" | "mtpEnd", layer: Layer): BlockNames {
    return this.#place(end, this.#native.prefix.step, layer);
  }

  /** What is outside of all layers. */
  outside(kind: "embedding" | "head"): BlockNames {
    return { prefix: "", uses: this.#native.uses[kind] };
  }

  /** What feeds any of `streams` (default: anything), of one expert where the names ask for one. */
  parts(place: BlockNames, streams?: readonly string[], expert = 0): readonly TensorUse[] {
    const parts: TensorUse[] = [];
    for (const use of place.uses) {
      const seen = new Set<string>();
      for (const stored of this.#named(place, use, expert)) {
        const tensor = place.instead?.get(tensorKey(stored)) ?? stored;
        const at: TensorPosition = { tp: tensor.rank?.tp ?? 0, expert, shape: tensor.shape };
        const feeds = use
          .outputs(this.#dims, at)
          .filter(({ to, count }) => count > 0 && streams?.includes(to) !== false);
        const eats = use.inputOffset?.(this.#dims, at) ?? 0;
        const part = JSON.stringify([feeds, eats]);
        if (feeds.length === 0 || seen.has(part)) continue; // what another rank has alike is read once
        seen.add(part);
        parts.push({ tensor, outputs: feeds, inputOffset: eats });
      }
    }
    return parts;
  }

  /** Every stored tensor that a block reads, each once. */
  all(place: BlockNames): readonly Tensor[] {
    const tensors = new Set<Tensor>();
    const counts = place.uses.map(({ name }) => (name.includes("{expert}") ? this.#experts : 1));
    for (let expert = 0; expert < Math.max(1, ...counts); expert++) {
      for (const { tensor } of this.parts(place, undefined, expert)) tensors.add(tensor);
    }
    return [...tensors];
  }

  /** A use's tensors, one for each tensor parallel rank that has it. */
  #named(
    { prefix, also: other, stage }: BlockNames,
    { name, also = [] }: Use,
    expert: number,
  ): readonly Tensor[] {
    const numbered = name.includes("{expert}");
    const ep = numbered ? Math.floor(expert / this.#expertsPerRank) : undefined;
    const local = String(numbered ? expert % this.#expertsPerRank : 0);
    const prefixes = other === undefined ? [prefix] : [prefix, other];
    const spellings = prefixes.flatMap((before) => [name, ...also].map((one) => before + one));
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

  #place(kind: string, prefix: string, { stack, index, inner, of }: Layer, also?: string): BlockNames {
    let [stage, own] = [0, stack === "main" ? index : Math.floor(index / of)];
    const counts = this.#stages[stack];
    for (; stage + 1 < counts.length && own >= counts[stage]!; stage++) own -= counts[stage]!;
    const numbers = { layer: stack === "main" ? own : index, outer: own, inner };
    const filled = (text: string) =>
      text.replace(/\{(layer|outer|inner)\}/g, (_, name: keyof typeof numbers) => String(numbers[name]));
    const other = also === undefined ? {} : { also: filled(also) };
    return { prefix: filled(prefix), ...other, stage, uses: this.#usesOf(kind) };
  }

  #usesOf(kind: string): readonly Use[] {
    const { dialect, uses } = this.#native;
    const found = uses[kind];
    if (found !== undefined) return found;
    throw new IsologitError("INTERNAL", `the dialect ${dialect} does not list the tensors of ${kind} layers`);
  }
}

/** A stack of matrices as one, whose rows follow each other; any other tensor as it is. */
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

/** Tensor parallel ranks in their order; of the others the first. */
function order({ rank }: Tensor): number {
  return rank === undefined ? 0 : (rank.tp * 2 ** 16 + rank.pp) * 2 ** 16 + rank.ep;
}

/** For each pipeline stage one more than the largest number that follows a prefix. */
function stages(tensors: readonly Tensor[], prefix: string): readonly number[] {
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
