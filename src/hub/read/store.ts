/**
 * A revision of a repository as a Store. Files in the cache are read there; other files are read by ranges. The caching
 * store downloads a whole file into the cache when a byte of it is read: then its digest is checked, and later reads
 * find it in the cache.
 */
import { basename, dirname } from "node:path";
import { IsologitError } from "../../core/errors.ts";
import type { Watch } from "../../core/events.ts";
import type { ByteSource, Store } from "../../core/io.ts";
import type { HubAddress } from "../../io/address.ts";
import { coalesceReads } from "../../io/coalesce.ts";
import { fileStore } from "../../io/file.ts";
import { remoteSource } from "../../io/http.ts";
import { cacheRanges, RangeCache } from "../../io/range-cache.ts";
import { findCachedFile } from "../cache/inventory.ts";
import { repoFolder } from "../cache/layout.ts";
import { saveListing } from "../cache/tree.ts";
import { type Connection, connect, offlineError } from "../connection.ts";
import { type HubFile, isLarge, type Listing } from "../files.ts";
import { hubSettings } from "../settings.ts";
import { fetchBlob } from "./blob.ts";
import { listRevision } from "./listing.ts";
import { Prefetch } from "./prefetch.ts";
import { remoteFile } from "./remote.ts";

export interface HubStore extends Store {
  /**
   * A store of the same files that saves them in the cache when they are read. `order`: order in which they will be
   * read.
   */
  cachingStore(order: readonly string[], watch?: Watch): Store;
}

/** As `hubStore`, with a connection for the settings of the environment. */
export async function openHubStore(address: HubAddress, keep: boolean, watch?: Watch): Promise<HubStore> {
  return await hubStore(await connect(await hubSettings(process.env, undefined, watch)), address, keep);
}

/**
 * @param keep small files are saved in the cache when they are opened; for large files use `cachingStore`
 * @throws NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE
 */
export async function hubStore(connection: Connection, address: HubAddress, keep = false): Promise<HubStore> {
  const { repo, revision, path } = address;
  const listing = await listRevision(connection, repo, revision);
  const files = filesOfAddress(listing, path);
  const url = `hf://${repo}@${listing.commit}${path === undefined ? "" : `/${path}`}`;
  const folder = repoFolder(connection.settings.cache, repo);
  const ranges = new RangeCache();
  let saving: Promise<void> | undefined;
  const saveOnce = () => (saving ??= saveListing(connection, listing));
  const list = async () => [...files].map(([name, { size }]) => ({ path: name, size }));
  const fileNamed = (name: string): HubFile => {
    const file = files.get(name);
    if (file === undefined) throw new IsologitError("NOT_FOUND", "no such file", { file: name });
    return file;
  };
  return {
    url,
    list,
    async open(name) {
      const file = fileNamed(name);
      const local = await findCachedFile(folder, listing.commit, file);
      if (local !== undefined) return await openLocalFile(local);
      if (connection.settings.offline) throw offlineError({ file: file.path });
      if (keep && !isLarge(file)) {
        await saveOnce();
        return await openLocalFile((await fetchBlob(connection, listing, file)).path);
      }
      const remote = remoteFile(connection, repo, listing.commit, file);
      const source = coalesceReads(remoteSource(`${url}/${name}`, remote, connection.settings.patience));
      return cacheRanges(source, file.path, ranges);
    },
    cachingStore(order, watch) {
      const prefetch = new Prefetch(order.map(fileNamed), async (file, signal) => {
        await saveOnce();
        const fetched = await fetchBlob(connection, listing, file, { signal });
        watch?.({ type: "file", path: file.path, bytes: file.size, fetched: fetched.bytes });
        return fetched.path;
      });
      return {
        url,
        list,
        async open(name) {
          const file = fileNamed(name);
          const local = await findCachedFile(folder, listing.commit, file);
          return local === undefined
            ? cachingSource(url, file, prefetch, ranges)
            : await openLocalFile(local);
        },
      };
    },
  };
}

/** The files below the folder of the address, by their paths in it. For the address of a file: that file only. */
function filesOfAddress(
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

async function openLocalFile(path: string): Promise<ByteSource> {
  const store = await fileStore(dirname(path));
  return await store.open(basename(path));
}

/** Downloads the file when a byte is read that is not in memory from reading its header. */
function cachingSource(url: string, file: HubFile, prefetch: Prefetch, ranges: RangeCache): ByteSource {
  const reader = prefetch.addReader();
  let local: Promise<ByteSource> | undefined;
  return {
    url: `${url}/${file.path}`,
    size: file.size,
    async readInto(target, offset, signal) {
      if (ranges.fill(file.path, target, offset)) return;
      local ??= prefetch.fetchWhole(file, signal).then(openLocalFile);
      const source = await local;
      await source.readInto(target, offset, signal);
    },
    async [Symbol.asyncDispose]() {
      await reader[Symbol.asyncDispose]();
      const source = await local?.catch(() => undefined); // the reader got the error
      await source?.[Symbol.asyncDispose]();
    },
  };
}
