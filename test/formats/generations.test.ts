/**
 * One tensor in a distributed checkpoint as each generation of Megatron core described it: what was added to
 * `.metadata` over the years says nothing more, and must not be in the way.
 */
import { describe, expect, it } from "vitest";
import { type WrittenValue, writePickle } from "../../formats/codec/pickle/write.ts";
import { pickledTensor } from "../../formats/torch-dist/pickles.ts";
import { readDist } from "../../formats/torch-dist/read.ts";
import { bytesIn } from "../support/content.ts";
import { codeOf } from "../support/errors.ts";
import { memoryStore } from "../support/memory-store.ts";
import { archive } from "../support/ranks-cut.ts";

const META = "torch.distributed.checkpoint.metadata";
const PLANNER = "torch.distributed.checkpoint.planner";
const MCORE = "megatron.core.dist_checkpointing.strategies.torch";
const KEY = "decoder.final_norm.weight";

const elements = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);
const entry = archive(writePickle(pickledTensor("F32", [4], 0)), [elements]);
const file = Buffer.concat([entry, archive(writePickle({ list: [null] }), [])]);

type Fields = readonly (readonly [string, WrittenValue])[];

const object = (name: string, fields: Fields = []): WrittenValue => ({
  ...{ newobj: { global: name }, args: [] },
  ...(fields.length > 0 && { state: { dict: fields } }),
});
const size = (...sizes: number[]): WrittenValue => ({
  reduce: { global: "torch.Size" },
  args: [{ tuple: sizes }],
});
const chunk = object(`${META}.ChunkStorageMetadata`, [
  ["offsets", size(0)],
  ["sizes", size(4)],
]);
/** As every torch since 2.1 writes them; before, a dict of fields. */
const PROPERTIES: WrittenValue = {
  tuple: [
    { global: "torch.float32" },
    { reduce: { global: "torch.serialization._get_layout" }, args: ["torch.strided"] },
    false,
    { reduce: { global: `${META}._MEM_FORMAT_ENCODING` }, args: [0] },
    false,
  ],
};
const tensor = (state: WrittenValue): WrittenValue =>
  object(`${META}.TensorStorageMetadata`, [
    ["properties", { newobj: { global: `${META}.TensorProperties` }, args: [], state }],
    ["size", size(4)],
    ["chunks", { list: [chunk] }],
  ]);
const index = (fqn: string, offset: WrittenValue): WrittenValue =>
  object(`${META}.MetadataIndex`, [
    ["fqn", fqn],
    ["offset", offset],
    ["index", 0],
  ]);
const place = (offset: number, length: number, more: Fields): WrittenValue =>
  object("torch.distributed.checkpoint.filesystem._StorageInfo", [
    ["relative_path", "__0_0.distcp"],
    ["offset", offset],
    ["length", length],
    ...more,
  ]);

interface Generation {
  readonly root: string;
  /** attributes of the root beyond torch's own */
  readonly more: Fields;
  readonly properties?: WrittenValue;
  /** fields of a place beyond the first three */
  readonly placed?: Fields;
}

function metadata({ root, more, properties = PROPERTIES, placed = [] }: Generation): Uint8Array {
  const bytes = object(`${META}.BytesStorageMetadata`);
  return writePickle(
    object(root, [
      [
        "state_dict_metadata",
        {
          dict: [
            [KEY, tensor(properties)],
            ["rng_state/shard_0.0_1.1", bytes],
          ],
        },
      ],
      ["planner_data", { dict: [[KEY, { tuple: [KEY] }]] }],
      [
        "storage_data",
        {
          dict: [
            [index(KEY, size(0)), place(0, entry.byteLength, placed)],
            [
              index("rng_state/shard_0.0_1.1", null),
              place(entry.byteLength, file.byteLength - entry.byteLength, placed),
            ],
          ],
        },
      ],
      ...more,
    ]),
  );
}

const item = object(`${PLANNER}.WriteItem`, [
  ["index", index(KEY, size(0))],
  ["type", { reduce: { global: `${PLANNER}.WriteItemType` }, args: [2] }],
  ["bytes_io_data", null],
  [
    "tensor_data",
    object(`${PLANNER}.TensorWriteData`, [
      ["chunk", chunk],
      ["properties", { newobj: { global: `${META}.TensorProperties` }, args: [], state: PROPERTIES }],
      ["size", size(4)],
    ]),
  ],
]);
const plan = (name: string): WrittenValue =>
  object(name, [
    ["items", { list: [item] }],
    ["storage_data", null],
    ["planner_data", { dict: [[KEY, { tuple: [KEY] }]] }],
  ]);
const storageMeta = object(`${META}.StorageMeta`, [
  ["checkpoint_id", "/somebody/else/iter_0000010"],
  ["save_id", null],
  ["load_id", null],
  ["modules", { list: [] }],
]);
const reformulated: Fields = [
  ["mcore_data", { dict: [[KEY, { dict: [["nd_reformulated_orig_global_shape", { tuple: [4] }]] }]] }],
];

const GENERATIONS: Readonly<Record<string, Generation>> = {
  "torch 2.0, properties by name": {
    root: `${META}.Metadata`,
    more: [],
    properties: {
      dict: [
        ["dtype", { global: "torch.float32" }],
        ["requires_grad", false],
        ["pin_memory", false],
      ],
    },
  },
  "core 0.9": { root: `${META}.Metadata`, more: reformulated },
  "core 0.12": {
    root: `${META}.Metadata`,
    more: [
      ...reformulated,
      ["storage_meta", storageMeta],
      ["all_local_plans", { list: [plan(`${MCORE}.MCoreSavePlan`)] }],
    ],
  },
  "core 0.15": {
    root: `${MCORE}.MCoreMetadata`,
    more: [
      ...reformulated,
      ["storage_meta", storageMeta],
      ["version", "1.0.0"],
      ["all_local_plans", { list: [plan(`${MCORE}.MCoreSavePlan`)] }],
    ],
    placed: [["transform_descriptors", null]],
  },
  "core 0.16 and later": {
    root: `${META}.Metadata`,
    more: [
      ["storage_meta", storageMeta],
      ["version", "1.0.0"],
      ["all_local_plans", { list: [plan(`${PLANNER}.SavePlan`)] }],
    ],
    placed: [["transform_descriptors", { list: [] }]],
  },
};

const storeOf = (generation: Generation) =>
  memoryStore(
    "memory",
    new Map([
      ["w/.metadata", metadata(generation)],
      ["w/__0_0.distcp", new Uint8Array(file)],
    ]),
  );

describe("`.metadata` of", () => {
  it.each(Object.entries(GENERATIONS))("%s", async (_, generation) => {
    const store = storeOf(generation);
    const { tensors, objects } = await readDist(store, "w/");
    expect(tensors).toMatchObject([{ name: KEY, dtype: "F32", shape: [4] }]);
    expect(await bytesIn(store, tensors[0]!)).toEqual(elements);
    expect(objects).toEqual(["rng_state/shard_0.0_1.1"]);
  });

  it("a class that nobody knows at the root is refused", async () => {
    const store = storeOf({ root: "somebody.else.Metadata", more: [] });
    expect(await codeOf(() => readDist(store, "w/"))).toBe("PICKLE_REFUSED");
  });

  it("a plan that is code is never run and in nobody's way", async () => {
    const store = storeOf({
      root: `${META}.Metadata`,
      more: [["all_local_plans", { reduce: { global: "posix.system" }, args: ["touch ISOLOGIT_PWNED"] }]],
    });
    expect((await readDist(store, "w/")).tensors).toHaveLength(1);
  });
});
