/** Facts about an address by which near misses are recognised: names, sizes and first bytes of files. */
import { type Header, readHeader } from "../../../formats/codec/safetensors.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import type { IsologitError } from "../../core/errors.ts";
import { readRange, readSmall, type Store } from "../../core/io.ts";
import { isJsonObject, parseJsonObject } from "../../core/json.ts";
import { type FileContent, fileContent, START_BYTES } from "./content.ts";

export interface SceneFile {
  readonly path: string;
  readonly size: number;
}

export interface Scene {
  /** as it was given */
  readonly address: string;
  readonly store: Store;
  readonly files: readonly SceneFile[];
  /** the error of opening or matching */
  readonly error: IsologitError;
  /** the opened checkpoint, if its tensors fit no model */
  readonly checkpoint?: Checkpoint;
  /** kind of a file by its first bytes */
  contentOf(path: string): Promise<FileContent>;
  /** header of a safetensors file; null if there is no valid header */
  headerOf(path: string): Promise<Header | null>;
  /** a JSON object; null if there is none, or if the file is too large */
  jsonOf(path: string): Promise<Readonly<Record<string, unknown>> | null>;
}

/** Limit of a config; configs of real checkpoints are smaller. */
const MAX_JSON_BYTES = 4 * 1024 * 1024;

/** @throws the errors of listing the store */
export async function sceneOf(
  address: string,
  store: Store,
  error: IsologitError,
  checkpoint?: Checkpoint,
): Promise<Scene> {
  const files = await store.list();
  const contents = new Map<string, Promise<FileContent>>();
  const headers = new Map<string, Promise<Header | null>>();
  const look = async (path: string) => {
    await using source = await store.open(path);
    return fileContent(await readRange(source, 0, Math.min(source.size, START_BYTES)));
  };
  return {
    address,
    store,
    files,
    error,
    ...(checkpoint !== undefined && { checkpoint }),
    contentOf: (path) => remembered(contents, path, () => look(path)),
    headerOf: (path) =>
      remembered(headers, path, async () => {
        try {
          await using source = await store.open(path);
          return await readHeader(source, path);
        } catch {
          return null; // the file is damaged or is not a safetensors file
        }
      }),
    async jsonOf(path) {
      if (!files.some((file) => file.path === path)) return null;
      try {
        const json = parseJsonObject(await readSmall(store, path, MAX_JSON_BYTES), { nonFinite: true });
        return isJsonObject(json) ? json : null;
      } catch {
        return null;
      }
    },
  };
}

function remembered<T>(known: Map<string, Promise<T>>, key: string, find: () => Promise<T>): Promise<T> {
  const found = known.get(key) ?? find();
  known.set(key, found);
  return found;
}
