/** What lies at an address, as far as names, sizes and first bytes tell: what near misses are recognised by. */
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
  /** what went wrong */
  readonly error: IsologitError;
  /** what was opened, where the address is a checkpoint whose tensors fit no config */
  readonly checkpoint?: Checkpoint;
  /** what a file is by its first bytes */
  contentOf(path: string): Promise<FileContent>;
  /** the header of a safetensors file; null where there is no sound one */
  headerOf(path: string): Promise<Header | null>;
  /** a JSON object; null where there is none, or a large one */
  jsonOf(path: string): Promise<Readonly<Record<string, unknown>> | null>;
}

/** The configs of real checkpoints are smaller. */
const MAX_JSON_BYTES = 4 * 1024 * 1024;

/** @throws what listing the store throws */
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
          return null; // the file is damaged, or none: then the header tells nothing of what it is
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
