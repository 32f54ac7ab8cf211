/** What the keys of a GGUF say about its model, for people and for scripts. Nothing is computed with it. */
import type { Checkpoint, TypedValue } from "../../src/core/checkpoint.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { FILE_TYPES } from "../codec/gguf/types.ts";

/** Null where the file has no such key. */
export interface GgufFacts {
  readonly architecture: string | null;
  readonly name: string | null;
  /** such as `Q4_K_M`, as llama-quantize names it; the number if it has no known name */
  readonly fileType: string | null;
  readonly layers: number | null;
  /** tokens */
  readonly contextLength: number | null;
  readonly tokenizer: {
    /** such as `gpt2` */
    readonly model: string | null;
    /** name of the rules that split a text before it is tokenized */
    readonly pre: string | null;
    readonly tokens: number | null;
    /** bytes of the chat template */
    readonly chatTemplateBytes: number | null;
  };
  readonly parts: readonly { readonly file: string; readonly tensors: number; readonly bytes: number }[];
  /** every key of the first part, in order */
  readonly metadata: readonly GgufKey[];
}

interface GgufKey {
  readonly key: string;
  /** `u8` to `f64`, `bool`, `string`, or the type of the elements of a list: `i32[]` */
  readonly type: string;
  /** bytes of a string, elements of a list */
  readonly count?: number;
  /** absent if it has more than 16 KiB. Whole numbers beyond 2^53, and numbers that are not finite, are strings */
  readonly value?: GgufValue | readonly GgufValue[];
}

type GgufValue = number | boolean | string;

/** @param checkpoint of the format gguf */
export function ggufFacts({ metadata = [], tensors }: Checkpoint): GgufFacts {
  const entries = new Map(metadata.map((entry) => [entry.key, entry]));
  const text = (key: string): string | null => {
    const value = entries.get(key)?.value;
    return typeof value === "string" ? value : null;
  };
  const count = (key: string): number | null => {
    const value = entries.get(key)?.value;
    return typeof value === "number" ? value : null;
  };
  const inside = new Map<string, { tensors: number; bytes: number }>();
  for (const { span } of metadata) inside.set(span.file, { tensors: 0, bytes: 0 }); // the first part may have keys alone
  for (const { dtype, shape, pieces } of tensors) {
    const { file } = pieces[0]!; // the reader gives every tensor one piece
    const { tensors: count, bytes } = inside.get(file) ?? { tensors: 0, bytes: 0 };
    inside.set(file, { tensors: count + 1, bytes: bytes + bytesOf(dtype, shape) });
  }
  const architecture = text("general.architecture");
  const fileType = count("general.file_type");
  return {
    architecture,
    name: text("general.name"),
    fileType: fileType === null ? null : (FILE_TYPES.get(fileType) ?? String(fileType)),
    layers: count(`${architecture}.block_count`),
    contextLength: count(`${architecture}.context_length`),
    tokenizer: {
      model: text("tokenizer.ggml.model"),
      pre: text("tokenizer.ggml.pre"),
      tokens: entries.get("tokenizer.ggml.tokens")?.count ?? null,
      chatTemplateBytes: entries.get("tokenizer.chat_template")?.span.size ?? null,
    },
    parts: [...inside].map(([file, counts]) => ({ file, ...counts })),
    metadata: metadata.map(keyOf),
  };
}

function keyOf({ key, type, count, value }: TypedValue): GgufKey {
  return {
    key,
    type,
    ...(count !== undefined && { count }),
    ...(value !== undefined && { value: Array.isArray(value) ? value.map(jsonValue) : jsonValue(value) }),
  };
}

function jsonValue(value: unknown): GgufValue {
  if (typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value)))
    return String(value);
  return value as GgufValue; // the other scalars of `TypedValue`
}
