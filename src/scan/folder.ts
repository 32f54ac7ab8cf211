/** Lists the files at an address that `scan` reads, and reports unexpected entries. Links to other folders are not followed. */
import { constants, type Dirent } from "node:fs";
import { lstat, open, readdir, readlink, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, relative, sep } from "node:path";
import { storeAt } from "../checkpoint/store.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Finding } from "../core/finding.ts";
import { finding } from "../core/finding.ts";
import { readRange, type Store } from "../core/io.ts";
import { isHubAddress } from "../io/address.ts";
import { fileStore } from "../io/file.ts";

/** Limit of entries, as in `fileStore`; a zarr checkpoint has about 100,000 files. */
const MAX_ENTRIES = 1_000_000;
/** Links of this form are the files of the Hub's cache. */
const CACHE_BLOB = /^(\.\.\/)+blobs\/[0-9a-f]{40,64}$/;
const START_BYTES = 4;
/** First bytes of programs: ELF, Windows, Mach-O in both byte orders and all forms, scripts. */
const PROGRAM = /^(7f454c46|4d5a|feedface|feedfacf|cefaedfe|cffaedfe|cafebabe|2321)/;
/** Endings of the files of checkpoints. */
const EXPECTED =
  /\.(safetensors|json|jsonl|jinja|txt|md|ya?ml|model|tiktoken|vocab|bpe|pt|pth|bin|ckpt|nemo|tar|gz|tgz|pkl|pickle|distcp|metadata|isologit|gguf|npy|npz|zarray|zattrs|zgroup|onnx|png|jpe?g|svg|webp|gif|pdf|html|csv|toml|cfg|sha256|index|lock|gitattributes|gitignore)$/i;
/** Known files without an ending: licences, chunks of zarr, pickled arguments of Fiddle. */
const EXPECTED_NAME =
  /^(LICENSE|LICENCE|NOTICE|README|COPYING|MODEL_CARD|\d+(\.\d+)*|[0-9a-f-]{36}|\.metadata)$/i;

interface FoundFile {
  /** relative to the folder */
  readonly path: string;
  /** path in its store */
  readonly name: string;
  store(): Promise<Store>;
}

interface FolderContents {
  /** in order */
  readonly files: readonly FoundFile[];
  readonly findings: readonly Finding[];
}

/** @throws NOT_FOUND, IO_FAILED, LIMIT_EXCEEDED; of the Hub also ACCESS_REFUSED, NETWORK, OFFLINE, LISTING_UNSAFE */
export async function listFolder(address: string): Promise<FolderContents> {
  if (isHubAddress(address)) return await lookThrough(await storeAt(address));
  try {
    const about = await stat(address);
    if (about.isDirectory()) return await walk(address);
    if (about.isFile()) return { files: [onDisk(basename(address), address)], findings: [] };
  } catch (error) {
    throw systemError(error, { file: address });
  }
  const path = basename(address);
  return {
    files: [],
    findings: [finding("special-file", "error", { file: path }, "neither a file nor a folder")],
  };
}

const onDisk = (path: string, where: string): FoundFile => ({
  path,
  name: basename(where),
  store: () => fileStore(where),
});

/** A commit has only files: links are not followed, and there are no modes and no pipes. */
async function lookThrough(store: Store): Promise<FolderContents> {
  const findings: Finding[] = [];
  const files: FoundFile[] = [];
  for (const { path, size } of await store.list()) {
    await using source = await store.open(path);
    findings.push(...aboutContent(path, await readRange(source, 0, Math.min(size, START_BYTES)), size));
    // A store of one file, as on disk: a compressed archive is inflated before it is read.
    const alone: Store = {
      url: store.url,
      list: async () => [{ path, size }],
      open: (name) => store.open(name),
    };
    files.push({ path, name: path, store: async () => alone });
  }
  return { files, findings };
}

async function walk(root: string): Promise<FolderContents> {
  const files: FoundFile[] = [];
  const findings: Finding[] = [];
  const real = await realpath(root);
  let entries = 0;
  async function visit(prefix: string): Promise<void> {
    const listed = await readdir(join(root, prefix), { withFileTypes: true });
    for (const entry of listed.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = prefix + entry.name;
      if (++entries > MAX_ENTRIES) {
        throw new IsologitError("LIMIT_EXCEEDED", `more than ${MAX_ENTRIES} files`, { file: root });
      }
      if (entry.isSymbolicLink()) findings.push(...(await aboutLink(root, real, path, files)));
      else if (entry.isDirectory()) {
        if (path !== ".git" && !path.startsWith(".cache/huggingface")) await visit(`${path}/`);
      } else if (entry.isFile()) {
        files.push(onDisk(path, join(root, path)));
        findings.push(...(await aboutFile(join(root, path), path)));
      } else
        findings.push(
          finding("special-file", "error", { file: path }, `${kindOf(entry)}; a read could wait forever`),
        );
    }
  }
  await visit("");
  return { files, findings };
}

async function aboutLink(root: string, real: string, path: string, files: FoundFile[]): Promise<Finding[]> {
  const where = join(root, path);
  const target = await readlink(where);
  const lands = await realpath(where).catch(() => null);
  if (lands === null)
    return [finding("symlink", "error", { file: path }, `a link to ${target}, which does not exist`)];
  const isFile = (await stat(where)).isFile();
  if (CACHE_BLOB.test(target) && basename(dirname(lands)) === "blobs" && isFile) {
    files.push(onDisk(path, lands));
    return [];
  }
  const inside = lands === real || relative(real, lands).split(sep)[0] !== "..";
  if (inside) return [finding("symlink", "warning", { file: path }, `a link to ${target}`)];
  return [finding("symlink", "error", { file: path }, `a link out of the folder, to ${target}`)];
}

async function aboutFile(where: string, path: string): Promise<Finding[]> {
  const { mode, size } = await lstat(where);
  const findings = aboutContent(path, await firstBytes(where), size);
  const marked = (mode & constants.S_IXUSR) !== 0 && !/\.py$/i.test(path);
  if (!marked || findings.some(({ rule }) => rule === "executable")) return findings;
  const mark = finding("executable", "warning", { file: path }, "the file is marked as executable");
  return [mark, ...findings.filter(({ rule }) => rule !== "unexpected-file")];
}

/** Findings from the name and the first bytes of a file. */
function aboutContent(path: string, start: Uint8Array, size: number): Finding[] {
  const findings: Finding[] = [];
  const name = basename(path);
  if (PROGRAM.test(Buffer.from(start).toString("hex"))) {
    findings.push(finding("executable", "error", { file: path }, "a program or a script"));
  }
  if (/\.(py|pyc|pyd|so|dll|dylib)$/i.test(name)) {
    const severity = /\.py$/i.test(name) ? "warning" : "error";
    findings.push(finding("remote-code", severity, { file: path }, "code that comes with the checkpoint"));
  } else if (findings.length === 0 && size > 0 && !EXPECTED.test(name) && !EXPECTED_NAME.test(name)) {
    findings.push(
      finding(
        "unexpected-file",
        "warning",
        { file: path },
        "no known checkpoint has a file with such a name",
      ),
    );
  }
  return findings;
}

async function firstBytes(where: string): Promise<Uint8Array> {
  await using handle = await open(where, "r");
  const { buffer, bytesRead } = await handle.read(new Uint8Array(START_BYTES), 0, START_BYTES, 0);
  return buffer.subarray(0, bytesRead);
}

function kindOf(entry: Dirent): string {
  return entry.isFIFO() ? "a pipe" : entry.isSocket() ? "a socket" : "a device";
}
