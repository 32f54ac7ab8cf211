/** Places a GGUF, in one file or in parts: the header with keys of the model, its tokenizer and its side files; then the tensors. */
import type { DType } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { encodeGgufHeader, type WrittenKey } from "../codec/gguf/encode.ts";
import { FILE_TYPES } from "../codec/gguf/types.ts";
import type { Placement, WantedTensor, WriteRequest } from "../format.ts";
import { typedKeys } from "./key-types.ts";
import { originKeys, originPath, ROOT_KEY } from "./origin-keys.ts";
import { sourceTypesKey } from "./source-types.ts";
import { tokenizerKeys } from "./tokenizer/keys.ts";

/** Path of the only file in a placement. */
const FILE = "";
/** The first words of the names of parts. */
const MODEL = "model";
/** llama.cpp numbers parts in as many digits. */
const MAX_PARTS = 99_999;

/**
 * @throws PLAN_IMPOSSIBLE for a tokenizer with more tokens than the table has rows, and for side files that no header holds
 */
export function placeGguf(wanted: WriteRequest): Placement {
  const { keys, notes } = allKeys(wanted);
  return placementOf([placeFile(FILE, keys, wanted.tensors)], notes);
}

/**
 * Places parts of at most `maxShardBytes`, in the order of the tensors, as llama-gguf-split names and numbers them. The keys of
 * the model are in the first part. A part is larger where its keys or one tensor are.
 *
 * @throws as `placeGguf`
 */
export function placeGgufParts(wanted: WriteRequest): Placement {
  const { keys, notes } = allKeys(wanted);
  const { tensors, options } = wanted;
  const groups = groupTensors(keys, tensors, options.maxShardBytes ?? Infinity);
  if (groups.length > MAX_PARTS) {
    const message = `${groups.length} files would be written; names of parts have numbers up to ${MAX_PARTS}`;
    throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next: "give a larger `maxShardBytes`" });
  }
  const digits = (number: number) => String(number).padStart(5, "0");
  const parts = groups.map((group, i) => {
    const name = `${MODEL}-${digits(i + 1)}-of-${digits(groups.length)}.gguf`;
    const own = splitKeys(i, groups.length, tensors.length);
    return placeFile(name, i === 0 ? [...keys, ...own] : own, group);
  });
  return placementOf(parts, notes);
}

type PlacedFile = ReturnType<typeof placeFile>;

/** One file: its header, and where its tensors are. */
function placeFile(path: string, keys: readonly WrittenKey[], tensors: readonly WantedTensor[]) {
  const { bytes, offsets, size, valueAt } = encodeGgufHeader(keys, tensors);
  const rootAt = valueAt.get(ROOT_KEY);
  return {
    ...{ path, size, bytes },
    tensors: tensors.map(({ name }, i) => ({ name, file: path, offset: offsets[i]! })),
    root: rootAt === undefined ? null : { file: path, offset: rootAt },
  };
}

function placementOf(files: readonly PlacedFile[], notes: readonly string[]): Placement {
  const root = files[0]?.root ?? null;
  return {
    files: files.map(({ path, size }) => ({ path, size })),
    tensors: files.flatMap(({ tensors }) => tensors),
    inline: files.map(({ path, bytes }) => ({ file: path, offset: 0, bytes })),
    copies: [],
    seals: [],
    ...(root !== null && { root }),
    notes,
  };
}

/** The tensors of each part. A part takes tensors as long as its file stays within the size; the first may have none. */
function groupTensors(
  keys: readonly WrittenKey[],
  tensors: readonly WantedTensor[],
  maxBytes: number,
): readonly (readonly WantedTensor[])[] {
  const groups: WantedTensor[][] = [[]];
  let size = headerBytes([...keys, ...splitKeys(0, 1, 1)]);
  for (const tensor of tensors) {
    const entry = encodeGgufHeader([], [tensor]);
    const bytes = entry.size; // with its entry in the header, and rounded up
    const isFirst = groups.length === 1; // llama.cpp loads a first part that has keys alone
    if (size + bytes > maxBytes && (isFirst || groups.at(-1)!.length > 0)) {
      groups.push([]);
      size = headerBytes(splitKeys(0, 1, 1));
    }
    groups.at(-1)!.push(tensor);
    size += bytes;
  }
  return groups;
}

const headerBytes = (keys: readonly WrittenKey[]): number => encodeGgufHeader(keys, []).size;

/** What each part says of itself: its number, which begins at 0, and the numbers of parts and of tensors in all of them. */
const splitKeys = (number: number, count: number, tensors: number): readonly WrittenKey[] => [
  { key: "split.no", type: "u16", value: number },
  { key: "split.tensors.count", type: "i32", value: tensors },
  { key: "split.count", type: "u16", value: count },
];

/** The keys of the model, its tokenizer and its side files. */
function allKeys(wanted: WriteRequest): {
  readonly keys: readonly WrittenKey[];
  readonly notes: readonly string[];
} {
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
  return { keys, notes: tokenizer.notes };
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
