/** What a checkpoint holds, for comparison: bytes of tensors, and how much of them a reader touched. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CERTIFICATE_FILE, type Checkpoint, type Tensor } from "../core/checkpoint.ts";
import { bytesOf, countOf } from "../core/dtype.ts";
import { sha256 } from "../core/hash.ts";
import { readRange, type Store } from "../core/io.ts";
import { extentsOf } from "../core/read.ts";

export async function bytesIn(store: Store, tensor: Tensor): Promise<Uint8Array> {
  const bytes = new Uint8Array(bytesOf(tensor.dtype, tensor.shape));
  for (const { file, offset, to, size } of extentsOf(tensor, 0, countOf(tensor.shape))) {
    await using source = await store.open(file);
    bytes.set(await readRange(source, offset, size), to);
  }
  return bytes;
}

/** Type, shape and digest of every tensor, by its name and rank. */
export async function digestsOf({ store, tensors }: Checkpoint): Promise<ReadonlyMap<string, string>> {
  const digests = new Map<string, string>();
  for (const tensor of tensors) {
    const { name, dtype, shape, rank } = tensor;
    const key = rank === undefined ? name : `${name}@${rank.tp}.${rank.pp}.${rank.ep}`;
    digests.set(key, `${dtype} [${shape}] ${sha256(await bytesIn(store, tensor))}`);
  }
  return digests;
}

/** `store`, and the largest number of bytes read of any one run of a tensor's elements. */
export function watchedStore(store: Store): {
  readonly store: Store;
  payloadBytes(tensors: readonly Tensor[]): number;
} {
  const reads: { file: string; from: number; to: number }[] = [];
  return {
    store: {
      url: store.url,
      list: () => store.list(),
      async open(path) {
        const source = await store.open(path);
        return {
          url: source.url,
          size: source.size,
          async readInto(target, offset, signal) {
            await source.readInto(target, offset, signal);
            reads.push({ file: path, from: offset, to: offset + target.byteLength });
          },
          [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
        };
      },
    },
    payloadBytes(tensors) {
      let most = 0;
      for (const tensor of tensors) {
        for (const { file, offset, size } of extentsOf(tensor, 0, countOf(tensor.shape))) {
          const touched = reads
            .filter((read) => read.file === file)
            .reduce((sum, { from, to }) => {
              return sum + Math.max(0, Math.min(to, offset + size) - Math.max(from, offset));
            }, 0);
          most = Math.max(most, touched);
        }
      }
      return most;
    },
  };
}

/** Every file below a folder but its certificate: its relative path and the SHA-256 of its bytes. */
export function filesOf(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(
    (entry) => entry.isFile() && entry.name !== CERTIFICATE_FILE,
  );
  const paths = files.map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.sort().map((path) => [path.slice(folder.length + 1), sha256(readFileSync(path))]));
}
