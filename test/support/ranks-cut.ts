/** Files of Megatron's ranks, made from tensors named `module@tp.pp.ep`, as training runs of every shape leave them. */
import { crc32 } from "node:zlib";
import { type WrittenValue, writePickle } from "../../formats/codec/pickle/write.ts";
import { archiveOf } from "../../formats/codec/torch-zip/write.ts";
import { orderedDict, pickledTensor } from "../../formats/torch-dist/pickles.ts";
import type { StoredArray } from "./goldens.ts";

/** The stages of a pipeline that one file holds, by the name of their part. */
export interface RankFile {
  readonly path: string;
  readonly parts: Readonly<Record<string, string>>;
}

/** @param beside  what else each file holds */
export function rankFiles(
  tensors: ReadonlyMap<string, StoredArray>,
  files: readonly RankFile[],
  beside: readonly (readonly [string, WrittenValue])[],
): Map<string, Uint8Array> {
  return new Map(
    files.map(({ path, parts }) => {
      const storages: Uint8Array[] = [];
      const models = Object.entries(parts).map(([name, rank]) => {
        const own = [...tensors].filter(([key]) => key.endsWith(`@${rank}`));
        const entries = own.map(([key, { dtype, shape, bytes }]) => {
          storages.push(bytes);
          return [key.split("@")[0]!, pickledTensor(dtype, shape, storages.length - 1)] as const;
        });
        return [name, orderedDict([...entries, ["decoder.final_norm._extra_state", null]])] as const;
      });
      const pickle = writePickle({ dict: [["checkpoint_version", { float: 3 }], ...models, ...beside] });
      return [path, archive(pickle, storages)] as const;
    }),
  );
}

export function archive(pickle: Uint8Array, storages: readonly Uint8Array[]): Uint8Array {
  const made = archiveOf(
    { root: "archive", pickle, storages: storages.map((one) => one.byteLength) },
    storages.map((one) => crc32(one)),
  );
  const bytes = new Uint8Array(made.size);
  for (const gap of made.gaps) bytes.set(gap.bytes, gap.offset);
  made.storages.forEach((offset, i) => {
    bytes.set(storages[i]!, offset);
  });
  return bytes;
}
