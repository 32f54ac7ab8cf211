/** `isologit.origin/`: files that the format of a destination cannot hold, carried for the conversion back. */
import type { CarriedFiles } from "./checkpoint.ts";
import { IsologitError } from "./errors.ts";
import { readRange, type Store } from "./io.ts";

export const ORIGIN_FOLDER = "isologit.origin/";
/** in that folder: a file with the content root of the model that the other files belong to */
export const ORIGIN_ROOT = "root";
/** in that folder: the headers of weight files, under their paths */
export const ORIGIN_HEADERS = "headers/";

/** 64 hex digits and a line end. The file is first written with UNKNOWN_ROOT and overwritten when the root is known. */
const ROOT_BYTES = 65;
export const UNKNOWN_ROOT = "0".repeat(64);

/** The carried files of a store; undefined if there are none. Readers of formats do not list them as side files. */
export async function readCarriedFiles(store: Store): Promise<CarriedFiles | undefined> {
  const files = (await store.list()).filter(({ path }) => path.startsWith(ORIGIN_FOLDER));
  const root = files.find(({ path }) => path === ORIGIN_FOLDER + ORIGIN_ROOT);
  if (root === undefined) return undefined;
  if (root.size !== ROOT_BYTES) {
    throw new IsologitError("HEADER_INVALID", `${root.size} bytes, expected a digest of ${ROOT_BYTES}`, {
      file: root.path,
    });
  }
  await using file = await store.open(root.path);
  const text = new TextDecoder().decode(await readRange(file, 0, ROOT_BYTES)).trim();
  const sidecars = files
    .filter((file) => file !== root)
    .map(({ path, size }) => ({
      path: path.slice(ORIGIN_FOLDER.length),
      span: { file: path, offset: 0, size },
    }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  return { root: text === UNKNOWN_ROOT ? "" : text, sidecars };
}
