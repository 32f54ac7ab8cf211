/**
 * A folder, or one file, as a Store. Links to files are followed, because the Hub's cache consists of them. Folders that
 * belong to no checkpoint (`.git`, the Hub's download notes, staging folders of this program) are not listed.
 */
import type { BigIntStats } from "node:fs";
import { type FileHandle, open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { type ErrorLocation, IsologitError, systemError } from "../core/errors.ts";
import type { ByteSource, Store } from "../core/io.ts";
import { safePath } from "../core/safe-path.ts";

/** One `read` of 2^31 bytes kills Node 20 outright, and a 56B embedding is exactly 2^31 bytes. */
const MAX_READ_BYTES = 64 * 1024 * 1024;

/** A zarr checkpoint has some 100,000 files; folders that contain links to each other would give files without end. */
const MAX_ENTRIES = 1_000_000;

/** One of the numbered files of a model in GGUF: its software is given one of them and finds the others beside it. */
const PART = /^(.+-)\d{5}(-of-\d{5}\.gguf)$/i;

/**
 * @param root a folder; or a file: the store then contains only that file, under its name, and further parts of its model
 * @throws NOT_FOUND, IO_FAILED
 */
export async function fileStore(root: string): Promise<Store> {
  const about = await system({ file: root }, () => stat(root));
  const seen = new Map<string, string>(); // path -> stamp of the file when it was first opened
  if (about.isFile()) {
    const names = await partsBeside(root);
    const place = (name: string) => (name === basename(root) ? root : join(dirname(root), name));
    const entry = async (path: string) => {
      return { path, size: (await system({ file: place(path) }, () => stat(place(path)))).size };
    };
    return {
      url: root,
      list: () => Promise.all(names.map(entry)),
      open: async (path) => {
        if (!names.includes(path)) throw new IsologitError("NOT_FOUND", "no such file", { file: path });
        return openFile(place(path), path, seen);
      },
      refuseChanged: () => refuseChanged(seen, place),
      stamps: () => stampsAt(names, place),
    };
  }
  if (!about.isDirectory()) throw specialFileError(root);
  return {
    url: root,
    roots: [...new Set([resolve(root), await system({ file: root }, () => realpath(root))])],
    list: () => listFolder(root),
    open: async (path) => openFile(join(root, safePath(path, { file: path })), path, seen),
    refuseChanged: () => refuseChanged(seen, (path) => join(root, path)),
    stamps: async () => {
      const files = await listFolder(root);
      return await stampsAt(
        files.map(({ path }) => path),
        (path) => join(root, path),
      );
    },
  };
}

/** Files that are open at the same time for their stamps. */
const STAMPED_AT_ONCE = 16;

/** The state of files: a client of NFS asks the server for it when it opens a file, and remembers it otherwise. */
async function stampsAt(
  paths: readonly string[],
  whereIs: (path: string) => string,
): Promise<Readonly<Record<string, string>>> {
  const stamps: Record<string, string> = {};
  const stamp = async (path: string) => {
    const handle = await open(whereIs(path), "r");
    try {
      const { ino, size, mtimeNs, ctimeNs } = await handle.stat({ bigint: true });
      stamps[path] = `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
    } finally {
      await handle.close();
    }
  };
  for (let at = 0; at < paths.length; at += STAMPED_AT_ONCE) {
    const few = paths.slice(at, at + STAMPED_AT_ONCE);
    await Promise.all(few.map((path) => system({ file: path }, () => stamp(path))));
  }
  return stamps;
}

/** The name of a file, or the names of all parts of its model that are beside it, sorted. */
async function partsBeside(file: string): Promise<readonly string[]> {
  const name = basename(file);
  const [, before, after] = PART.exec(name) ?? [];
  if (before === undefined) return [name];
  const beside = await system({ file }, () => readdir(dirname(file)));
  const isPart = (other: string) =>
    other.length === name.length && other.startsWith(before) && other.endsWith(after!);
  return beside.filter(isPart).sort();
}

/** Whether a path exists; nothing is opened. */
export async function fileExists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

async function listFolder(root: string): Promise<{ path: string; size: number }[]> {
  const files: { path: string; size: number }[] = [];
  let entries = 0;
  async function walk(prefix: string, above: readonly string[]): Promise<void> {
    const folder = join(root, prefix);
    const real = await system({ file: folder }, () => realpath(folder));
    if (above.includes(real)) return; // a link to a folder above: its files are listed already
    for (const entry of await system({ file: folder }, () => readdir(folder, { withFileTypes: true }))) {
      const path = prefix + entry.name;
      if (++entries > MAX_ENTRIES) {
        throw new IsologitError("LIMIT_EXCEEDED", `more than ${MAX_ENTRIES} files`, { file: root });
      }
      if (isLock(entry.name)) continue;
      const about = await system({ file: path }, () => stat(join(root, path)));
      if (about.isFile()) files.push({ path, size: about.size });
      else if (!about.isDirectory()) throw specialFileError(path);
      else if (!isForeign(path)) await walk(`${path}/`, [...above, real]);
    }
  }
  await walk("", []);
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Folders inside a checkpoint's folder that do not belong to it. The Hub's own upload omits the same folders. */
function isForeign(path: string): boolean {
  return /(^|\/)(\.git|\.cache\/huggingface|[^/]+\.partial)$/.test(path);
}

/** The lock of a conversion that writes into this folder: a link without a target. */
function isLock(name: string): boolean {
  return /\.partial\.lock(\.[0-9a-f]+)?$/.test(name);
}

function specialFileError(path: string): IsologitError {
  return new IsologitError("PATH_UNSAFE", "neither a file nor a folder", { file: path });
}

/** Opens a regular file only: opening a pipe would wait for its writer forever. */
async function openFile(where: string, path: string, seen: Map<string, string>): Promise<ByteSource> {
  const at = { file: path };
  if (!(await system(at, () => stat(where))).isFile()) throw specialFileError(path);
  const handle = await system(at, () => open(where, "r"));
  try {
    const { stamp, size } = await stampOf(handle, at);
    if ((seen.get(path) ?? stamp) !== stamp) throw changedError(at, "since it was first opened");
    seen.set(path, stamp);
    return sourceOf(handle, where, at, size, stamp);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function sourceOf(
  handle: FileHandle,
  where: string,
  at: ErrorLocation,
  size: number,
  stamp: string,
): ByteSource {
  async function read(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    if (offset + target.byteLength > size) {
      const message = `the file has ${size} bytes; ${target.byteLength} were requested from byte ${offset}`;
      throw new IsologitError("TRUNCATED", message, { ...at, offset: size });
    }
    for (let done = 0; done < target.byteLength; ) {
      if (signal?.aborted) throw new IsologitError("INTERRUPTED", "stopped on request", at);
      const count = Math.min(target.byteLength - done, MAX_READ_BYTES);
      const place = { ...at, offset: offset + done };
      const { bytesRead } = await system(place, () => handle.read(target, done, count, offset + done));
      if (bytesRead === 0) throw changedError(place, "and is shorter now");
      done += bytesRead;
    }
    if ((await stampOf(handle, at)).stamp !== stamp) throw changedError(at, "while it was read");
  }
  const running = new Set<Promise<void>>();
  return {
    url: where,
    size,
    readInto(target, offset, signal) {
      const reading = read(target, offset, signal);
      const settled: Promise<void> = reading.then(
        () => void running.delete(settled),
        () => void running.delete(settled), // the caller of `readInto` gets the error
      );
      running.add(settled);
      return reading;
    },
    /** Waits for running reads: Node may close a handle between two parts of one read, which would then fail. */
    async [Symbol.asyncDispose]() {
      await Promise.all(running);
      await handle.close();
    },
  };
}

/** A text that changes when the file changes, made without reading the file. */
async function stampOf(handle: FileHandle, at: ErrorLocation): Promise<{ stamp: string; size: number }> {
  const about = await system(at, () => handle.stat({ bigint: true }));
  return { stamp: stampIn(about), size: Number(about.size) };
}

const stampIn = ({ dev, ino, size, mtimeNs }: BigIntStats): string => `${dev} ${ino} ${size} ${mtimeNs}`;

/** @param seen stamp of each file when it was first opened */
async function refuseChanged(
  seen: ReadonlyMap<string, string>,
  whereIs: (path: string) => string,
): Promise<void> {
  for (const [path, stamp] of seen) {
    const about = await stat(whereIs(path), { bigint: true }).catch((error) => {
      if (error.code !== "ENOENT") throw systemError(error, { file: path });
      return null;
    });
    if (about === null || stampIn(about) !== stamp)
      throw changedError({ file: path }, "since it was first opened");
  }
}

function changedError(at: ErrorLocation, how: string): IsologitError {
  return new IsologitError("FILE_CHANGED", `the file was changed ${how}`, at);
}

async function system<T>(at: ErrorLocation, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw systemError(error, at);
  }
}
