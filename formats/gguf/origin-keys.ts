/**
 * Files that GGUF has no place for, in keys of our own: paths, sizes, and all their bytes as lists of whole numbers. The viewer
 * of the Hub reads lists of at most 1,000,000 elements, so the bytes are in several lists.
 */
import { ORIGIN_FOLDER, ORIGIN_ROOT, UNKNOWN_ROOT } from "../../src/core/carried-files.ts";
import type { CarriedFiles, Sidecar, TypedValue } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { type ByteSource, readRange, type Store } from "../../src/core/io.ts";
import { safePath } from "../../src/core/safe-path.ts";
import type { WrittenKey } from "../codec/gguf/encode.ts";
import type { FileBytes } from "./tokenizer/source.ts";

export const ROOT_KEY = "isologit.origin.root";
const PATHS = "isologit.origin.paths";
const SIZES = "isologit.origin.sizes";
const DATA = "isologit.origin.data.";
const ELEMENT_BYTES = 8;
const MAX_ELEMENTS = 1_000_000;
/** All files together: they are in memory while they are written, and readers read headers whole. */
const MAX_BYTES = 128 * 1024 * 1024;

/** The file of a store that holds the bytes of all carried files; no path of a store begins with a slash. */
const CARRIED = "/carried";

/** @throws PLAN_IMPOSSIBLE if the files are too large for a header */
export function originKeys(files: FileBytes): readonly WrittenKey[] {
  if (files.size === 0) return [];
  const total = [...files.values()].reduce((sum, bytes) => sum + bytes.byteLength, 0);
  if (total > MAX_BYTES) {
    const message = `the files beside the weights have ${total} bytes; at most ${MAX_BYTES} fit into a header`;
    throw new IsologitError("PLAN_IMPOSSIBLE", message, { file: [...files.keys()][0]! });
  }
  const data = new Uint8Array(Math.ceil(total / ELEMENT_BYTES) * ELEMENT_BYTES);
  let at = 0;
  for (const bytes of files.values()) {
    data.set(bytes, at);
    at += bytes.byteLength;
  }
  const step = MAX_ELEMENTS * ELEMENT_BYTES;
  const lists = Array.from({ length: Math.ceil(data.byteLength / step) }, (_, i) => ({
    ...{ key: `${DATA}${i}`, type: "u64[]" as const },
    value: data.subarray(i * step, (i + 1) * step),
  }));
  return [
    { key: ROOT_KEY, type: "string", value: UNKNOWN_ROOT },
    { key: PATHS, type: "string[]", value: [...files.keys()] },
    { key: SIZES, type: "u64[]", value: [...files.values()].map(({ byteLength }) => byteLength) },
    ...lists,
  ];
}

/**
 * The carried files of a GGUF, and a store in which they are one more file.
 *
 * @throws HEADER_INVALID if the keys contradict each other; PATH_UNSAFE
 */
export function carriedIn(
  metadata: readonly TypedValue[],
  store: Store,
): { readonly files: CarriedFiles; readonly store: Store } | undefined {
  const valueAt = (key: string) => metadata.find((entry) => entry.key === key)?.value;
  const [root, paths, sizes] = [valueAt(ROOT_KEY), valueAt(PATHS), valueAt(SIZES)];
  if (typeof root !== "string" || !Array.isArray(paths) || !Array.isArray(sizes)) return undefined;
  const lists = metadata.filter(({ key, type }) => key.startsWith(DATA) && type === "u64[]");
  const available = lists.reduce((sum, { span }) => sum + span.size, 0);
  let at = 0;
  const sidecars = paths.map((path: unknown, i): Sidecar => {
    const size: unknown = sizes[i];
    const offset = at;
    if (typeof size !== "number" || size < 0 || offset + size > available)
      throw new IsologitError(
        "HEADER_INVALID",
        `${DATA}0 and the lists after it do not hold the files of ${PATHS}`,
      );
    at += size;
    return { path: safePath(String(path), { file: String(path) }), span: { file: CARRIED, offset, size } };
  });
  const open = async (path: string): Promise<ByteSource> =>
    path === CARRIED ? carriedSource(lists, store) : await store.open(path);
  return { files: { root: root === UNKNOWN_ROOT ? "" : root, sidecars }, store: { ...store, open } };
}

/** The bytes of all lists, one after the other. */
function carriedSource(lists: readonly TypedValue[], store: Store): ByteSource {
  return {
    url: store.url,
    size: lists.reduce((sum, { span }) => sum + span.size, 0),
    async readInto(target, offset) {
      let start = 0;
      for (const { span } of lists) {
        const [lo, hi] = [Math.max(offset, start), Math.min(offset + target.byteLength, start + span.size)];
        if (lo < hi) {
          await using source = await store.open(span.file);
          target.set(await readRange(source, span.offset + lo - start, hi - lo), lo - offset);
        }
        start += span.size;
      }
    },
    [Symbol.asyncDispose]: async () => {},
  };
}

/** The path of a carried file in its own folder; null for the file with the root, which has a key of its own. */
export function originPath(path: string): string | null {
  const own = path.startsWith(ORIGIN_FOLDER) ? path.slice(ORIGIN_FOLDER.length) : path;
  return own === ORIGIN_ROOT ? null : own;
}
