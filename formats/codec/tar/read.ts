/**
 * A tar archive as a Store: each member is a range of bytes in the archive, and nothing is extracted. Old, POSIX (ustar and
 * pax) and GNU headers are read. A checkpoint contains only plain files and folders: links, devices and names that lead out
 * of the archive are refused, and also anything that two readers could take for different files.
 */
import { IsologitError } from "../../../src/core/errors.ts";
import { type ByteSource, readRange, type Store } from "../../../src/core/io.ts";
import { safePath } from "../../../src/core/safe-path.ts";
import { sliceOf } from "../slice.ts";
import { BLOCK, parsePax, parseTarHeader, type TarHeader } from "./header.ts";

interface Member {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

/** A zarr checkpoint has some 100,000 files. */
const MAX_MEMBERS = 1_000_000;
/** Long names and pax records; a path has at most 4 kB. */
const MAX_EXTENSION_BYTES = 1024 * 1024;
/** tar pads its last record (10 kB by default, up to 1 MB on tapes) with zeros. */
const MAX_PADDING_BYTES = 1024 * 1024;

/**
 * @param path   the archive in `store`
 * @returns      a store of its members, sorted; its `open` opens the archive again
 * @throws       TRUNCATED, ARCHIVE_INVALID, PATH_UNSAFE, DUPLICATE_NAME, UNSUPPORTED, LIMIT_EXCEEDED, TRAILING_BYTES;
 *               each with the offset of the header
 */
export async function tarStore(store: Store, path: string): Promise<Store> {
  await using archive = await store.open(path);
  const members = new Map((await readMembers(archive, path)).map((member) => [member.path, member]));
  const sorted = [...members.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  return {
    url: archive.url,
    list: async () => sorted.map(({ path, size }) => ({ path, size })),
    async open(name) {
      const member = members.get(name);
      if (member === undefined)
        throw new IsologitError("NOT_FOUND", "no such file in the archive", { file: name });
      const source = await store.open(path);
      return {
        ...sliceOf(source, member.offset, member.size, name),
        [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
      };
    },
  };
}

/** Members in the order of the archive. */
async function readMembers(archive: ByteSource, file: string): Promise<Member[]> {
  const members: Member[] = [];
  const names = new Set<string>();
  const blocks = blocksOf(archive, file);
  /** path and size of the next member in extended headers */
  let extended: { path?: string; size?: number } = {};
  for (let offset = 0; ; ) {
    const at = { file, offset };
    const header = parseTarHeader(await blocks(offset), at);
    if (header === "end") {
      await checkEnd(archive, offset, file);
      return members;
    }
    const isExtension = header.type === "x" || header.type === "L" || header.type === "K";
    const size = isExtension ? header.size : (extended.size ?? header.size);
    const from = offset + BLOCK;
    if (from + size > archive.size) {
      const message = `member ${JSON.stringify(extended.path ?? header.name)} has ${size} bytes; the archive ends ${from + size - archive.size} bytes earlier`;
      throw new IsologitError("TRUNCATED", message, at);
    }
    offset = from + Math.ceil(size / BLOCK) * BLOCK;
    if (isExtension) {
      extended = { ...extended, ...(await extension(archive, header, from, file)) };
      continue;
    }
    if (header.type === "g") continue; // for all members; in practice only comments
    const path = pathOf(extended.path ?? header.name, header.type, at);
    extended = {};
    if (header.type === "5" && size > 0) {
      throw new IsologitError("ARCHIVE_INVALID", `folder ${path} has ${size} bytes of content`, at);
    }
    if (path === "") continue; // the top folder
    if (names.has(path)) throw new IsologitError("DUPLICATE_NAME", `two members are named ${path}`, at);
    names.add(path);
    if (names.size > MAX_MEMBERS)
      throw new IsologitError("LIMIT_EXCEEDED", `more than ${MAX_MEMBERS} members`, at);
    if (header.type !== "5") members.push({ path, offset: from, size });
  }
}

/** The plain relative path of a member. @throws PATH_UNSAFE, UNSUPPORTED */
function pathOf(name: string, type: string, at: { file: string; offset: number }): string {
  const shown = JSON.stringify(name);
  const link = { 1: "a hard link", 2: "a symbolic link", 3: "a device", 4: "a device", 6: "a pipe" }[type];
  if (link !== undefined) {
    throw new IsologitError("PATH_UNSAFE", `member ${shown} is ${link}; only files and folders are read`, at);
  }
  if (!["", "0", "5", "7"].includes(type)) {
    throw new IsologitError("UNSUPPORTED", `member ${shown} is of type ${JSON.stringify(type)}`, at, {
      next: "pack the folder again with `tar --format=pax`",
    });
  }
  const bare = name.replace(/^(\.\/+)+/, "").replace(type === "5" ? /\/+$/ : /$^/, "");
  return type === "5" && (bare === "" || bare === ".") ? "" : safePath(bare, at);
}

async function extension(archive: ByteSource, { type, size }: TarHeader, from: number, file: string) {
  const at = { file, offset: from };
  if (size > MAX_EXTENSION_BYTES) {
    throw new IsologitError(
      "LIMIT_EXCEEDED",
      `an extended header of ${size} bytes; at most ${MAX_EXTENSION_BYTES} are read`,
      at,
    );
  }
  const bytes = await readRange(archive, from, size);
  if (type === "x") return parsePax(bytes, at);
  // GNU: K is the target of a link, and the link itself is refused later
  return type === "L" ? { path: Buffer.from(bytes).toString("utf8").replace(/\0.*$/s, "") } : {};
}

/** Checks that only zeros follow the end, and not too many. @throws TRAILING_BYTES */
async function checkEnd(archive: ByteSource, offset: number, file: string): Promise<void> {
  const rest = await readRange(archive, offset, Math.min(archive.size - offset, MAX_PADDING_BYTES));
  const other = rest.findIndex((byte) => byte !== 0);
  if (other < 0 && offset + rest.byteLength === archive.size) return;
  const at = { file, offset: offset + (other < 0 ? rest.byteLength : other) };
  throw new IsologitError("TRAILING_BYTES", "the archive continues after its end", at);
}

/** Reads blocks of an archive by offset, several with one read. @throws TRUNCATED if the archive has no end mark */
function blocksOf(archive: ByteSource, file: string): (offset: number) => Promise<Uint8Array> {
  const WINDOW_BYTES = 64 * 1024;
  let window: Uint8Array = new Uint8Array();
  let windowAt = 0;
  return async (offset) => {
    if (offset + BLOCK > archive.size) {
      throw new IsologitError("TRUNCATED", "the archive stops before its end mark", {
        file,
        offset: archive.size,
      });
    }
    if (offset < windowAt || offset + BLOCK > windowAt + window.byteLength) {
      window = await readRange(archive, offset, Math.min(WINDOW_BYTES, archive.size - offset));
      windowAt = offset;
    }
    return window.subarray(offset - windowAt, offset - windowAt + BLOCK);
  };
}
