/**
 * What a power cut may leave of a run. Each call that changes the disk is recorded with what `fsync` brought to it, and
 * replayed up to any point. After the cut, a folder has the names of its last sync, or those of the moment; a file has the
 * bytes of its last sync, or those of the moment, or its size with zeros. (POSIX promises no more than that.)
 */
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { intercepted } from "./faulty-io.ts";

/** Of a file: bytes; of a folder: the nodes by their names; of a link: its target. */
type Content = Buffer | ReadonlyMap<string, number> | string;

interface Node {
  readonly now: Content;
  /** undefined: never synced */
  readonly synced: Content | undefined;
}

/** What the disk holds, by the number of the node; 0 is the folder that was recorded. */
type Disk = ReadonlyMap<number, Node>;

/** A part of the disk that survived. */
export type Survived = ReadonlyMap<string, Buffer | string>;

/** What survives of unsynced changes. */
export const CUTS = ["nothing", "names", "names and sizes", "bytes", "everything"] as const;
export type Cut = (typeof CUTS)[number];

export class RecordedDisk {
  /** the disk after each call that changed it */
  readonly states: Disk[] = [];
  readonly #root: string;
  readonly #open = new WeakMap<object, number>();
  #nodes = new Map<number, Node>();
  #next = 1;
  #isChanged = true;

  /** @param root a folder; what it contains before the recording is taken for synced, and given by `files` */
  constructor(root: string, files: ReadonlyMap<string, Buffer>) {
    this.#root = root;
    this.#nodes.set(0, { now: new Map(), synced: new Map() });
    for (const [path, bytes] of files) {
      const names = path.split("/");
      for (let depth = 1; depth < names.length; depth++)
        this.#makeFolder(join(root, ...names.slice(0, depth)));
      this.#place(join(root, path), bytes);
    }
    for (const [id, { now }] of this.#nodes) this.#nodes.set(id, { now, synced: now });
    this.#keep();
  }

  /** Runs `work`, recording what it does below the root. */
  async record<T>(work: () => Promise<T>): Promise<T> {
    const outcome = await intercepted(async (name, again, args, file) => {
      const syncs = name === "sync" || name === "datasync";
      const id = typeof file === "object" && file !== null ? this.#open.get(file) : undefined;
      const before = id === undefined ? undefined : this.#nodes.get(id)!.now; // a write during the sync need not be synced
      const result = await again(...args);
      if (syncs && id !== undefined) {
        this.#nodes.set(id, { now: this.#nodes.get(id)!.now, synced: before });
        this.#isChanged = true;
      } else if (id !== undefined) this.#change(id, name, args, result);
      else this.#apply(name, args, result);
      this.#keep();
      return result;
    }, work);
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  }

  /** Calls that only read leave the disk as it was. */
  #keep(): void {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    this.states.push(new Map(this.#nodes));
  }

  /** A call on an open file. */
  #change(id: number, name: string, args: readonly unknown[], result: unknown): void {
    const { now } = this.#nodes.get(id)!;
    if (!Buffer.isBuffer(now)) return;
    if (name === "truncate") {
      const size = (args[0] as number | undefined) ?? 0;
      this.#set(id, Buffer.concat([now.subarray(0, size), Buffer.alloc(Math.max(0, size - now.byteLength))]));
    } else if (name === "appendFile") this.#set(id, Buffer.concat([now, Buffer.from(args[0] as string)]));
    else if (name === "write") {
      const [bytes, at = 0, , position] = args as [Uint8Array, number, number, number];
      const { bytesWritten } = result as { bytesWritten: number };
      const part = bytes.subarray(at, at + bytesWritten);
      const next = Buffer.alloc(Math.max(now.byteLength, position + bytesWritten));
      next.set(now);
      next.set(part, position);
      this.#set(id, next);
    }
  }

  /** A call with paths. */
  #apply(name: string, args: readonly unknown[], result: unknown): void {
    const [path, second] = args as [string, string];
    const isBelow = (place: string) => resolve(place).startsWith(`${this.#root}/`);
    if (typeof path !== "string") return;
    switch (name) {
      case "open": {
        if (!isBelow(path) && resolve(path) !== this.#root) return;
        const flags = args[1] ?? "r";
        if (typeof flags === "string" && /[wa]/.test(flags)) {
          if (this.#find(path) === undefined) this.#place(path, Buffer.alloc(0));
          else if (flags.startsWith("w")) this.#set(this.#find(path)!, Buffer.alloc(0));
        }
        const id = this.#find(path);
        if (id === undefined) throw new Error(`${path} was opened and is not recorded`);
        this.#open.set(result as FileHandle, id);
        return;
      }
      case "mkdir":
        if (isBelow(path)) this.#makeFolder(path);
        return;
      case "writeFile":
        if (isBelow(path)) this.#place(path, Buffer.from(second));
        return;
      case "symlink":
        if (isBelow(second)) this.#place(second, path);
        return;
      case "link":
      case "rename": {
        if (!isBelow(path)) return;
        const id = this.#find(path)!;
        if (name === "rename") this.#remove(path);
        this.#enter(second, id);
        return;
      }
      case "rm":
      case "rmdir":
      case "unlink":
        if (isBelow(path) && this.#find(path) !== undefined) this.#remove(path);
    }
  }

  #find(path: string): number | undefined {
    const names = resolve(path)
      .slice(this.#root.length + 1)
      .split("/")
      .filter(Boolean);
    let id: number | undefined = 0;
    for (const name of names) {
      const { now }: Node = this.#nodes.get(id)!;
      id = now instanceof Map ? now.get(name) : undefined;
      if (id === undefined) return undefined;
    }
    return id;
  }

  #set(id: number, now: Content): void {
    this.#nodes.set(id, { now, synced: this.#nodes.get(id)?.synced });
    this.#isChanged = true;
  }

  #place(path: string, content: Content): void {
    const id = this.#find(path) ?? this.#next++;
    this.#set(id, content);
    this.#enter(path, id);
  }

  #makeFolder(path: string): void {
    if (this.#find(path) === undefined) this.#place(path, new Map());
  }

  #enter(path: string, id: number): void {
    const folder = this.#find(dirname(path))!;
    this.#set(
      folder,
      new Map(this.#nodes.get(folder)!.now as ReadonlyMap<string, number>).set(basename(path), id),
    );
  }

  #remove(path: string): void {
    const folder = this.#find(dirname(path))!;
    const entries = new Map(this.#nodes.get(folder)!.now as ReadonlyMap<string, number>);
    entries.delete(basename(path));
    this.#set(folder, entries);
  }
}

/** Files and links by their paths, and empty folders as "PATH/", that a power cut leaves. */
export function survivors(disk: Disk, cut: Cut): Survived {
  const found = new Map<string, Buffer | string>();
  const namesOf = ({ now, synced }: Node) =>
    ((cut === "nothing" || cut === "bytes" ? synced : now) ?? new Map()) as ReadonlyMap<string, number>;
  const bytesOf = ({ now, synced }: Node): Buffer => {
    const [all, safe] = [now as Buffer, (synced ?? Buffer.alloc(0)) as Buffer];
    if (cut === "bytes" || cut === "everything") return all;
    if (cut !== "names and sizes") return safe;
    const zeros = Buffer.alloc(all.byteLength);
    zeros.set(safe.subarray(0, zeros.byteLength));
    return zeros;
  };
  const walk = (id: number, prefix: string): void => {
    for (const [name, inner] of namesOf(disk.get(id)!)) {
      const node = disk.get(inner)!;
      if (typeof node.now === "string") found.set(`${prefix}${name}`, node.now);
      else if (Buffer.isBuffer(node.now)) found.set(`${prefix}${name}`, bytesOf(node));
      else {
        found.set(`${prefix}${name}/`, "");
        walk(inner, `${prefix}${name}/`);
      }
    }
  };
  walk(0, "");
  return found;
}
