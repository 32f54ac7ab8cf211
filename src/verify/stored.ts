/** Where a checkpoint keeps what a block needs, by the names of its own dialect. No layout and no rule is known here. */
import type { Tensor } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Dims, Feed, Layer, Native, Use, UseKind } from "../families/define.ts";

/** A block's stored tensors: what their names begin with, and what each is used for. */
export interface Place {
  readonly prefix: string;
  readonly uses: readonly Use[];
  /** read in place of the stored tensors of these names */
  readonly instead?: ReadonlyMap<string, Tensor>;
}

/** A stored tensor and those of its rows that one stream or parameter asks for. */
export interface Part {
  readonly tensor: Tensor;
  readonly feeds: readonly Feed[];
}

export class Stored {
  readonly #native: Native;
  readonly #dims: Dims;
  readonly #tensors: ReadonlyMap<string, Tensor>;

  constructor(native: Native, dims: Dims, tensors: ReadonlyMap<string, Tensor>) {
    this.#native = native;
    this.#dims = dims;
    this.#tensors = tensors;
  }

  layer(layer: Layer): Place {
    return this.#place(layer.kind, this.#native.prefix[layer.stack], layer);
  }

  /** What a prediction step has of its own, by its first ("join") or last ("end") layer. */
  step(end: "join" | "end", layer: Layer): Place {
    return this.#place(end, this.#native.prefix.step, layer);
  }

  get head(): Place {
    return { prefix: "", uses: this.#native.uses.head };
  }

  get embedding(): Tensor {
    const { embedding } = this.#native;
    return this.#tensor(embedding.find((name) => this.#tensors.has(name)) ?? embedding[0]!);
  }

  /** What feeds any of `streams`, of one expert where the names ask for one. @throws TENSOR_MISSING */
  parts({ prefix, uses, instead }: Place, streams: readonly string[], expert = 0): readonly Part[] {
    const parts: Part[] = [];
    for (const use of uses) {
      const name = prefix + use.name.replace("{expert}", String(expert));
      const tensor = instead?.get(name) ?? this.#tensors.get(name);
      if (tensor === undefined) continue;
      const feeds = use
        .feeds(this.#dims, { expert, shape: tensor.shape })
        .filter(({ to }) => streams.includes(to));
      if (feeds.length > 0) parts.push({ tensor, feeds });
    }
    return parts;
  }

  /** Every stored tensor of a block, all experts' included. */
  all({ prefix, uses }: Place): readonly Tensor[] {
    return uses.flatMap(({ name }) => {
      const numbered: Tensor[] = [];
      for (let expert = 0; ; expert++) {
        const tensor = this.#tensors.get(prefix + name.replace("{expert}", String(expert)));
        if (tensor === undefined) return numbered;
        numbered.push(tensor);
        if (!name.includes("{expert}")) return numbered;
      }
    });
  }

  #place(kind: UseKind, prefix: string, { index, inner, of }: Layer): Place {
    const numbers = { layer: index, inner, outer: Math.floor(index / of) };
    const filled = prefix.replace(/\{(layer|inner|outer)\}/g, (_, name: keyof typeof numbers) =>
      String(numbers[name]),
    );
    return { prefix: filled, uses: this.#native.uses[kind] };
  }

  #tensor(name: string): Tensor {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined)
      throw new IsologitError("TENSOR_MISSING", "the forward pass needs it", { tensor: name });
    return tensor;
  }
}
