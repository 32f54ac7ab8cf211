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

const FLOAT8 = "transformer_engine.pytorch.float8_tensor.Float8Tensor._make_in_reduce_ex";

/**
 * @param beside  what else each file holds
 * @param state   of a module in each file, as Transformer Engine stores it: bytes
 */
export function rankFiles(
  tensors: ReadonlyMap<string, StoredArray & { readonly scale?: number }>,
  files: readonly RankFile[],
  beside: readonly (readonly [string, WrittenValue])[],
  state?: Uint8Array,
): Map<string, Uint8Array> {
  return new Map(
    files.map(({ path, parts }) => {
      const storages: Uint8Array[] = [];
      const models = Object.entries(parts).map(([name, rank]) => {
        const own = [...tensors].filter(([key]) => key.endsWith(`@${rank}`));
        const tensor = (dtype: StoredArray["dtype"], shape: readonly number[], bytes: Uint8Array) =>
          pickledTensor(dtype, shape, storages.push(bytes) - 1);
        const entries = own.map(([key, { dtype, shape, bytes, scale }]) => {
          const value =
            scale === undefined
              ? tensor(dtype, shape, bytes)
              : {
                  reduce: { global: FLOAT8 },
                  args: [
                    tensor("U8", shape, bytes),
                    { newobj: { global: "transformer_engine_torch.DType" }, args: [], state: 7 },
                    tensor("F32", [1], new Uint8Array(Float32Array.of(scale).buffer)),
                    { global: "torch.bfloat16" },
                  ],
                };
          return [key.split("@")[0]!, value] as const;
        });
        const extra = state === undefined ? null : tensor("U8", [state.byteLength], state);
        return [name, orderedDict([...entries, ["decoder.final_norm._extra_state", extra]])] as const;
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
