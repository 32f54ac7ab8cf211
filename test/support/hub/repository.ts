/** Repositories as a Hub keeps them: commits, branches, and content named by its digest. */
import { createHash } from "node:crypto";
import { createReadStream, readFileSync, statSync } from "node:fs";
import { Readable } from "node:stream";

/** Bytes, or a file on disk whose digest is said and not computed: it may be large, and full of holes. */
export interface Content {
  readonly size: number;
  readonly sha256: string;
  /** git's digest of the bytes as a blob */
  readonly git: string;
  stream(start: number, end: number): Readable;
  bytes(): Buffer;
}

export interface HubEntry {
  readonly content: Content;
  readonly lfs: boolean;
}

export type Files = ReadonlyMap<string, HubEntry>;

export interface Repository {
  readonly name: string;
  readonly commits: Map<string, { readonly files: Files; readonly title: string }>;
  /** branch, tag or `refs/pr/N` to commit */
  readonly refs: Map<string, string>;
  private: boolean;
  gated: boolean;
}

const gitDigest = (bytes: Uint8Array) =>
  createHash("sha1").update(`blob ${bytes.byteLength}\0`).update(bytes).digest("hex");

export function contentOf(bytes: Uint8Array): Content {
  const all = Buffer.from(bytes);
  return {
    size: all.byteLength,
    sha256: createHash("sha256").update(all).digest("hex"),
    git: gitDigest(all),
    stream: (start, end) => Readable.from(cut(all.subarray(start, end))),
    bytes: () => all,
  };
}

/** In the portions in which a socket would give them. */
function* cut(bytes: Buffer): Iterable<Buffer> {
  for (let at = 0; at < bytes.byteLength; at += 65536) yield bytes.subarray(at, at + 65536);
}

/** @param sha256 said, where it would take too long to compute */
export function contentAt(path: string, sha256?: string): Content {
  const digest = () => createHash("sha256").update(readFileSync(path)).digest("hex");
  const said = sha256 ?? digest();
  return {
    size: statSync(path).size,
    sha256: said,
    git: gitDigest(Buffer.from(said)),
    stream: (start, end) =>
      start === end
        ? Readable.from([])
        : createReadStream(path, { start, end: end - 1, highWaterMark: 1024 * 1024 }),
    bytes: () => readFileSync(path),
  };
}

/** What git stores for a file in LFS. */
const pointerOf = ({ sha256, size }: Content) =>
  `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${size}\n`;

export const oidOf = ({ content, lfs }: HubEntry): string =>
  lfs ? gitDigest(Buffer.from(pointerOf(content))) : content.git;

export const etagOf = ({ content, lfs }: HubEntry): string => (lfs ? content.sha256 : content.git);

export function newRepository(name: string): Repository {
  const repository: Repository = { name, commits: new Map(), refs: new Map(), private: false, gated: false };
  commit(repository, "main", new Map(), "initial commit");
  return repository;
}

/** Named by what is in it and what came before, as git does: the same history has the same names. */
export function commit(repository: Repository, branch: string, files: Files, title: string): string {
  const hash = createHash("sha1").update(`${repository.refs.get(branch) ?? ""}\n${title}\n`);
  for (const [path, entry] of [...files].sort()) hash.update(`${path} ${oidOf(entry)}\n`);
  const oid = hash.digest("hex");
  repository.commits.set(oid, { files, title });
  repository.refs.set(branch, oid);
  return oid;
}

/** What the tree endpoint says of a file. */
export function treeEntry(path: string, entry: HubEntry): object {
  const { content, lfs } = entry;
  const pointerSize = Buffer.byteLength(pointerOf(content));
  return {
    type: "file",
    oid: oidOf(entry),
    size: content.size,
    path,
    ...(lfs && { lfs: { oid: content.sha256, size: content.size, pointerSize } }),
  };
}
