/** Pickles that we write, unpickled by Python itself with torch beside it. */
import { describe, expect, it } from "vitest";
import { type WrittenValue, writePickle } from "../../formats/codec/pickle/write.ts";
import { absent, judge, titled } from "./judge.ts";

const METADATA = "torch.distributed.checkpoint.metadata";
const size = (...sizes: number[]): WrittenValue => ({
  reduce: { global: "torch.Size" },
  args: [{ tuple: sizes }],
});
const made = (name: string, state: WrittenValue): WrittenValue => ({
  newobj: { global: name },
  args: [],
  state,
});

const VALUES: readonly [WrittenValue, string][] = [
  [
    { list: [null, true, false, 0, 255, 256, 65535, 65536, -1, -129, 2 ** 31] },
    "[None, True, False, 0, 255, 256, 65535, 65536, -1, -129, 2147483648]",
  ],
  [
    { list: [2n ** 63n, -(2n ** 63n) - 1n, 2n ** 100n] },
    "[9223372036854775808, -9223372036854775809, 1267650600228229401496703205376]",
  ],
  [{ list: [{ float: 0.1 }, { float: 1e-5 }, { float: Number.NEGATIVE_INFINITY }] }, "[0.1, 1e-05, -inf]"],
  [
    { list: ["", "é👍", { tuple: [] }, { tuple: [1] }, { tuple: [1, 2, 3, 4] }] },
    "['', 'é👍', (), (1,), (1, 2, 3, 4)]",
  ],
  [{ reduce: { global: "collections.OrderedDict" }, args: [], entries: [["a", 1]] }, "OrderedDict({'a': 1})"],
  [
    made("argparse.Namespace", { dict: [["dtype", { global: "torch.bfloat16" }]] }),
    "Namespace(dtype=torch.bfloat16)",
  ],
  [{ list: Array.from({ length: 2001 }, () => 7) }, `[${Array(2001).fill(7).join(", ")}]`],
  [
    made(`${METADATA}.TensorProperties`, {
      tuple: [
        { global: "torch.bfloat16" },
        { reduce: { global: "torch.serialization._get_layout" }, args: ["torch.strided"] },
        false,
        { reduce: { global: `${METADATA}._MEM_FORMAT_ENCODING` }, args: [0] },
        false,
      ],
    }),
    "TensorProperties(dtype=torch.bfloat16, layout=torch.strided, requires_grad=False, memory_format=torch.contiguous_format, pin_memory=False)",
  ],
  [
    made(`${METADATA}.ChunkStorageMetadata`, {
      dict: [
        ["offsets", size(0, 0)],
        ["sizes", size(2, 3)],
      ],
    }),
    "ChunkStorageMetadata(offsets=torch.Size([0, 0]), sizes=torch.Size([2, 3]))",
  ],
];

describe.skipIf(absent !== null)(titled("pickles, by Python"), () => {
  it("are what was meant, to the last byte", async () => {
    const files = VALUES.map(([value]) => Buffer.from(writePickle(value)).toString("base64"));
    const seen = await judge().ask<[string, boolean][]>("unpickled", { files });
    expect(seen).toEqual(VALUES.map(([, text]) => [text, true]));
  });
});
