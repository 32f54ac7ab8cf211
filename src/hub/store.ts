/**
 * A revision of a repository as a Store. Files that the cache has are read there; others by ranges, as they are asked
 * for. A store that keeps fetches a file whole, into the cache, when its first byte is wanted: then digests hold, and
 * whoever reads it again finds it.
 */
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import type { ByteSource, Store } from "../core/io.ts";
import type { HubAddress } from "../io/address.ts";
import { coalesceReads } from "../io/coalesce.ts";
import { fileStore } from "../io/file.ts";
import { remoteSource } from "../io/http.ts";
import { cacheRanges, RangeCache } from "../io/range-cache.ts";
import { fetchBlob } from "./blob.ts";
import { blobPath, type RepoFolder, repoFolder, snapshotPath } from "./cache/layout.ts";
import { type Connection, connect, offline } from "./connection.ts";
import { type HubFile, isLarge, type Listing, listRevision, remember } from "./listing.ts";
import { Prefetch } from "./prefetch.ts";
import { remoteFile } from "./remote.ts";
import { hubSettings } from "./settings.ts";

export interface HubStore extends Store {
  /** The same files, kept in the cache as they are read; `order` is that in which they will be wanted. */
  kept(order: readonly string[], watch?: Watch): Store;
}

/** As `hubStore`, over a connection by the settings of the environment. */
export async function storeOnHub(address: HubAddress, keep: boolean, watch?: Watch): Promise<HubStore> {
  return await hubStore(connect(await hubSettings(process.env, undefined, watch)), address, keep);
}

/**
 * @param keep small files go into the cache as soon as they are opened; large ones wait for `kept`
 * @throws NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE
 */
export async function hubStore(connection: Connection, address: HubAddress, keep = false): Promise<HubStore> {
  const { repo, revision, path } = address;
  const listing = await listRevision(connection, repo, revision);
  const files = filesBelow(listing, path);
  const url = `hf://${repo}@${listing.commit}${path === undefined ? "" : `/${path}`}`;
  const folder = repoFolder(connection.settings.cache, repo);
  const recall = new RangeCache();
  let remembering: Promise<void> | undefined;
  const remembered = () => (remembering ??= remember(connection, listing));
  const list = async () => [...files].map(([name, { size }]) => ({ path: name, size }));
  const found = (name: string): HubFile => {
    const file = files.get(name);
    if (file === undefined) throw new IsologitError("NOT_FOUND", "no such file", { file: name });
    return file;
  };
  return {
    url,
    list,
    async open(name) {
      const file = found(name);
      const local = await cachedFile(folder, listing.commit, file);
      if (local !== undefined) return await openLocal(local);
      if (connection.settings.offline) throw offline({ file: file.path });
      if (keep && !isLarge(file)) {
        await remembered();
        return await openLocal((await fetchBlob(connection, listing, file)).path);
      }
      const remote = remoteFile(connection, repo, listing.commit, file);
      const source = coalesceReads(remoteSource(`${url}/${name}`, remote, connection.settings.patience));
      return cacheRanges(source, file.path, recall);
    },
    kept(order, watch) {
      const prefetch = new Prefetch(order.map(found), async (file, signal) => {
        await remembered();
        const fetched = await fetchBlob(connection, listing, file, { signal });
        watch?.({ type: "file", path: file.path, bytes: file.size, fetched: fetched.bytes });
        return fetched.path;
      });
      return {
        url,
        list,
        async open(name) {
          const file = found(name);
          const local = await cachedFile(folder, listing.commit, file);
          return local === undefined ? keptSource(url, file, prefetch, recall) : await openLocal(local);
        },
      };
    },
  };
}

/** By their paths below the folder that the address names; of a file, that file alone. */
function filesBelow(
  { files, repo, commit }: Listing,
  path: string | undefined,
): ReadonlyMap<string, HubFile> {
  if (path === undefined) return new Map(files.map((file) => [file.path, file]));
  const exact = files.find((file) => file.path === path);
  if (exact !== undefined) return new Map([[basename(path), exact]]);
  const below = files.filter((file) => file.path.startsWith(`${path}/`));
  if (below.length > 0) return new Map(below.map((file) => [file.path.slice(path.length + 1), file]));
  throw new IsologitError("NOT_FOUND", "no such file or folder", { file: `hf://${repo}@${commit}/${path}` });
}

/** Where the cache has a file, at the size that the listing says; undefined where it does not. */
export async function cachedFile(
  folder: RepoFolder,
  commit: string,
  file: HubFile,
): Promise<string | undefined> {
  for (const path of [join(snapshotPath(folder, commit), file.path), blobPath(folder, file.etag)]) {
    const about = await stat(path).catch(() => undefined);
    if (about?.isFile() && about.size === file.size) return path;
  }
  return undefined;
}

async function openLocal(path: string): Promise<ByteSource> {
  const store = await fileStore(dirname(path));
  return await store.open(basename(path));
}

/** Nothing is fetched until a byte is wanted that its header did not tell already. */
function keptSource(url: string, file: HubFile, prefetch: Prefetch, recall: RangeCache): ByteSource {
  const interest = prefetch.enter();
  let local: Promise<ByteSource> | undefined;
  return {
    url: `${url}/${file.path}`,
    size: file.size,
    async readInto(target, offset, signal) {
      if (recall.fill(file.path, target, offset)) return;
      local ??= prefetch.whole(file, signal).then(openLocal);
      const source = await local;
      await source.readInto(target, offset, signal);
    },
    async [Symbol.asyncDispose]() {
      await interest[Symbol.asyncDispose]();
      const source = await local?.catch(() => undefined); // its reader has the error
      await source?.[Symbol.asyncDispose]();
    },
  };
}
