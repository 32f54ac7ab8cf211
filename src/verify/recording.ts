/**
 * Reads logits that other software recorded: a safetensors file with one prompt or several, distinguished by a suffix of
 * the tensor names. docs/recording-references.md explains how to make these files.
 */
import { readHeader, type StoredTensor } from "../../formats/codec/safetensors.ts";
import { type FloatDType, isFloat, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { type ByteSource, readRange } from "../core/io.ts";
import { fileStore } from "../io/file.ts";

/** One recorded prompt. Each row is a position. */
export interface RecordedLogits {
  readonly key: string;
  readonly ids: readonly number[];
  /** all arithmetic was F32; false: the values have the noise of BF16 */
  readonly exact: boolean;
  readonly answer:
    | { readonly kind: "logits"; block(lo: number, hi: number): Promise<Float32Array> }
    /** token ids and their log-probabilities, [T, k] each; `NO_WORD` fills positions with fewer than k */
    | {
        readonly kind: "logprobs";
        readonly words: readonly number[];
        readonly values: Float32Array;
        readonly k: number;
      };
  /** the recorded hidden state [T, hidden] of this name; null where none was recorded for this prompt */
  hidden(name: string): Promise<Float32Array | null>;
}

interface Recording extends AsyncDisposable {
  readonly prompts: readonly RecordedLogits[];
}

/** Marks an entry of the token ids as unused; its log-probability has no meaning. */
export const NO_WORD = -1;

/** Names of logits tensors, the most exact first. */
const LOGITS = ["logits_f32", "logits", "logits_bf16"];
/** Longest accepted prompt; a longer tensor is certainly not a prompt. */
const MAX_TOKENS = 2 ** 20;

/**
 * Opens a recording.
 *
 * @throws USAGE for a file that is not a recording for this vocabulary; codes of exit status 3 for a damaged file
 */
export async function openRecording(path: string, vocab: number): Promise<Recording> {
  const store = await fileStore(path);
  const [file] = await store.list();
  if (file === undefined)
    throw new IsologitError("USAGE", "the file is not a safetensors file", { file: path });
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
    for (const key of keys.filter((key) => key !== undefined).sort()) {
      prompts.push(await recording.prompt(key, metadata?.compute));
    }
    if (prompts.length === 0) throw new IsologitError("USAGE", "the file has no input_ids", { file: path });
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

  /**
   * @param key     suffix of the tensor names, with its dot, or ""
   * @param compute the arithmetic that the file declares
   */
  async prompt(key: string, compute: string | undefined): Promise<RecordedLogits> {
    const ids = await this.#integers(`input_ids${key}`);
    const outside = ids.find((id) => id < 0 || id >= this.#vocab);
    if (ids.length === 0 || ids.length > MAX_TOKENS || outside !== undefined) {
      const found = outside === undefined ? `${ids.length} ids` : `the id ${outside}`;
      throw this.#refuse(`input_ids${key}`, `it has ${found}; this vocabulary has ${this.#vocab}`);
    }
    const name = LOGITS.find((prefix) => this.#tensors.has(prefix + key));
    const tensor = this.#tensors.get(name === undefined ? `logprobs${key}` : name + key);
    if (tensor === undefined)
      throw this.#refuse(`input_ids${key}`, "the file has neither logits nor logprobs for these ids");
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
        throw this.#refuse(`logprob_ids${key}`, "its length differs from that of logprobs");
      const unknown = words.find((word) => word !== NO_WORD && (word < 0 || word >= this.#vocab));
      if (unknown !== undefined)
        throw this.#refuse(
          `logprob_ids${key}`,
          `it has the id ${unknown}; this vocabulary has ${this.#vocab}`,
        );
      if (words.every((word) => word === NO_WORD))
        throw this.#refuse(`logprob_ids${key}`, "it has no token id at any position");
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

  /** Names of hidden states have no suffix; they belong to the prompt with the same number of tokens. */
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
    const next = { next: "see docs/recording-references.md for the content of a recording" };
    return new IsologitError("USAGE", message, { file: this.#file, tensor }, next);
  }
}
