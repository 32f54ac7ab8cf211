/**
 * Logits that other software recorded: a safetensors file, of one prompt or of several, told apart by a suffix.
 * docs/recording-references.md says how such files are made.
 */
import { readHeader, type StoredTensor } from "../../formats/codec/safetensors.ts";
import { type FloatDType, isFloat, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { type ByteSource, readRange } from "../core/io.ts";
import { fileStore } from "../io/file.ts";

/** One recorded prompt. Rows are positions. */
export interface RecordedLogits {
  readonly key: string;
  readonly ids: readonly number[];
  /** whether it was computed in F32 throughout; else it carries the noise of BF16 */
  readonly exact: boolean;
  readonly answer:
    | { readonly kind: "logits"; block(lo: number, hi: number): Promise<Float32Array> }
    /** log-probabilities of some words a position, [T, k] each; `NO_WORD` where a position has fewer */
    | {
        readonly kind: "logprobs";
        readonly words: readonly number[];
        readonly values: Float32Array;
        readonly k: number;
      };
  /** the hidden state [T, hidden] of that name, where it was recorded for this prompt */
  hidden(name: string): Promise<Float32Array | null>;
}

export interface Recording extends AsyncDisposable {
  readonly prompts: readonly RecordedLogits[];
}

/** In the place of a word: what stands beside it says nothing. */
export const NO_WORD = -1;

/** Names under which logits are found, the most exact first. */
const LOGITS = ["logits_f32", "logits", "logits_bf16"];
/** A prompt is at most this long: what is longer was not meant to be one. */
const MAX_TOKENS = 2 ** 20;

/** @throws USAGE for a file that is no recording for this vocabulary; codes of exit status 3 for a damaged one */
export async function openRecording(path: string, vocab: number): Promise<Recording> {
  const store = await fileStore(path);
  const [file] = await store.list();
  if (file === undefined) throw new IsologitError("USAGE", "it is no safetensors file", { file: path });
  const source = await store.open(file.path);
  try {
    const { tensors, metadata } = await readHeader(source, path);
    const recording = new Tensors(
      source,
      path,
      new Map(tensors.map((tensor) => [tensor.name, tensor])),
      vocab,
    );
    const keys = tensors.map(({ name }) => /^input_ids(\..+)?$/.exec(name)?.[0].slice("input_ids".length));
    const prompts: RecordedLogits[] = [];
    for (const key of keys.filter((one) => one !== undefined).sort()) {
      prompts.push(await recording.prompt(key, metadata?.compute));
    }
    if (prompts.length === 0) throw new IsologitError("USAGE", "it has no input_ids", { file: path });
    return { prompts, [Symbol.asyncDispose]: () => source[Symbol.asyncDispose]() };
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

class Tensors {
  readonly #source: ByteSource;
  readonly #file: string;
  readonly #tensors: ReadonlyMap<string, StoredTensor>;
  readonly #vocab: number;

  constructor(source: ByteSource, file: string, tensors: ReadonlyMap<string, StoredTensor>, vocab: number) {
    this.#source = source;
    this.#file = file;
    this.#tensors = tensors;
    this.#vocab = vocab;
  }

  /** @param key with its dot, or "" @param compute what the file says its arithmetic was */
  async prompt(key: string, compute: string | undefined): Promise<RecordedLogits> {
    const ids = await this.#integers(`input_ids${key}`);
    const outside = ids.find((id) => id < 0 || id >= this.#vocab);
    if (ids.length === 0 || ids.length > MAX_TOKENS || outside !== undefined) {
      const found = outside === undefined ? `${ids.length} ids` : `the id ${outside}`;
      throw this.#refuse(`input_ids${key}`, `it has ${found}; this vocabulary has ${this.#vocab}`);
    }
    const name = LOGITS.find((one) => this.#tensors.has(one + key));
    const tensor = this.#tensors.get(name === undefined ? `logprobs${key}` : name + key);
    if (tensor === undefined)
      throw this.#refuse(`input_ids${key}`, "neither logits nor logprobs stand beside it");
    const [rows, columns] = [ids.length, tensor.shape.at(-1)!];
    const least = name === undefined ? 1 : this.#vocab; // a vocabulary may be padded
    if (
      tensor.shape.slice(0, -1).reduce((a, b) => a * b, 1) !== rows ||
      columns < least ||
      tensor.shape.length > 3
    )
      throw this.#refuse(tensor.name, `it is [${tensor.shape}], expected [${rows}, ${least} or more]`);
    const exact = tensor.dtype === "F32" && (compute ?? "float32") === "float32";
    const hidden = (of: string) => this.#hidden(of, rows);
    if (name === undefined) {
      const words = await this.#integers(`logprob_ids${key}`);
      if (words.length !== rows * columns)
        throw this.#refuse(`logprob_ids${key}`, "it is not as long as logprobs");
      const strange = words.find((word) => word !== NO_WORD && (word < 0 || word >= this.#vocab));
      if (strange !== undefined)
        throw this.#refuse(
          `logprob_ids${key}`,
          `it has the id ${strange}; this vocabulary has ${this.#vocab}`,
        );
      if (words.every((word) => word === NO_WORD))
        throw this.#refuse(`logprob_ids${key}`, "it names no word at any position");
      const values = await this.#floats(tensor, 0, rows * columns);
      return { key, ids, exact, hidden, answer: { kind: "logprobs", words, values, k: columns } };
    }
    const block = async (lo: number, hi: number) => {
      const values = new Float32Array(rows * (hi - lo));
      for (let t = 0; t < rows; t++) {
        values.set(await this.#floats(tensor, t * columns + lo, t * columns + hi), t * (hi - lo));
      }
      return values;
    };
    return { key, ids, exact, hidden, answer: { kind: "logits", block } };
  }

  /** Hidden states carry no suffix; they are of the prompt that is as long as they are. */
  async #hidden(name: string, rows: number): Promise<Float32Array | null> {
    const tensor = this.#tensors.get(`hidden.${name}`);
    if (tensor === undefined || tensor.shape.at(-2) !== rows) return null;
    return this.#floats(
      tensor,
      0,
      tensor.shape.reduce((a, b) => a * b, 1),
    );
  }

  async #floats(tensor: StoredTensor, lo: number, hi: number): Promise<Float32Array> {
    if (!isFloat(tensor.dtype)) throw this.#refuse(tensor.name, `it is ${tensor.dtype}, expected numbers`);
    const dtype: FloatDType = tensor.dtype;
    const width = widthOf(dtype);
    return widen(dtype, await readRange(this.#source, tensor.begin + lo * width, (hi - lo) * width));
  }

  async #integers(name: string): Promise<readonly number[]> {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw this.#refuse(name, "it is missing");
    const { buffer } = await readRange(this.#source, tensor.begin, tensor.end - tensor.begin);
    if (tensor.dtype === "I64") return Array.from(new BigInt64Array(buffer), Number);
    if (tensor.dtype === "I32") return Array.from(new Int32Array(buffer));
    throw this.#refuse(name, `it is ${tensor.dtype}, expected I64 or I32`);
  }

  #refuse(tensor: string, message: string): IsologitError {
    const next = { next: "see docs/recording-references.md for what such a file holds" };
    return new IsologitError("USAGE", message, { file: this.#file, tensor }, next);
  }
}
