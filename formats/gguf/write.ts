/** Places a GGUF file: the header with keys of the model, its tokenizer and its side files; then the tensors. */
import type { DType } from "../../src/core/dtype.ts";
import { encodeGgufHeader, type WrittenKey } from "../codec/gguf/encode.ts";
import { FILE_TYPES } from "../codec/gguf/types.ts";
import type { Placement, WriteRequest } from "../format.ts";
import { typedKeys } from "./key-types.ts";
import { originKeys, originPath, ROOT_KEY } from "./origin-keys.ts";
import { sourceTypesKey } from "./source-types.ts";
import { tokenizerKeys } from "./tokenizer-keys.ts";

/** Path of the only file in a placement. */
const FILE = "";

/**
 * @throws PLAN_IMPOSSIBLE for a tokenizer with more tokens than the table has rows, and for side files that no header holds
 */
export function placeGguf(wanted: WriteRequest): Placement {
  const files = new Map(
    wanted.sidecars.flatMap((file): [string, Uint8Array][] => {
      const path = originPath(file.path);
      return path === null || !("bytes" in file) ? [] : [[path, file.bytes]];
    }),
  );
  const { tensors } = wanted;
  const rows = tensors.find(({ name }) => name === "token_embd.weight")?.shape[0] ?? 0;
  const tokenizer = tokenizerKeys(files, rows);
  const keys: readonly WrittenKey[] = [
    ...withOwn(typedKeys(wanted.config), [
      { key: "general.type", type: "string", value: "model" },
      { key: "general.file_type", type: "u32", value: fileTypeOf(wanted) },
      { key: "general.quantization_version", type: "u32", value: 2 },
      ...tokenizer.keys,
    ]),
    sourceTypesKey(tensors),
    ...originKeys(files),
  ];
  const { bytes, offsets, size, valueAt } = encodeGgufHeader(keys, tensors);
  const rootAt = valueAt.get(ROOT_KEY);
  return {
    files: [{ path: FILE, size }],
    tensors: tensors.map(({ name }, i) => ({ name, file: FILE, offset: offsets[i]! })),
    inline: [{ file: FILE, offset: 0, bytes }],
    copies: [],
    seals: [],
    ...(rootAt !== undefined && { root: { file: FILE, offset: rootAt } }),
    notes: tokenizer.notes,
  };
}

/** The keys of the model, then further ones; a key of the model takes the place of a further one. */
function withOwn(model: readonly WrittenKey[], further: readonly WrittenKey[]): readonly WrittenKey[] {
  const known = new Set(model.map(({ key }) => key));
  return [...model, ...further.filter(({ key }) => !known.has(key))];
}

/** The number by which llama.cpp names the kind of a file: the kind that was asked for, or that of most weights in matrices. */
function fileTypeOf({ tensors, options: { fileKind } }: WriteRequest): number {
  const numbers = new Map([...FILE_TYPES].map(([number, name]) => [name, number]));
  if (fileKind !== undefined) return numbers.get(fileKind.toUpperCase())!;
  const weights = new Map<DType, number>();
  for (const { dtype, shape } of tensors) {
    if (shape.length < 2) continue;
    weights.set(dtype, (weights.get(dtype) ?? 0) + shape.reduce((product, n) => product * n, 1));
  }
  const [main = "F32"] = [...weights].sort((a, b) => b[1] - a[1])[0] ?? [];
  return numbers.get(main) ?? numbers.get(`${main}_S`) ?? 0;
}
