/** Pickles, torch archives, tars and zarr with damage in: their parsers give a value or an IsologitError, and soon. */
import { readFileSync } from "node:fs";
import { describe, it } from "vitest";
import { readPickle } from "../../formats/codec/pickle/read.ts";
import { tarStore } from "../../formats/codec/tar/read.ts";
import { readTorch } from "../../formats/codec/torch-zip/read.ts";
import { readZarr } from "../../formats/codec/zarr.ts";
import { stringifyJson } from "../../src/core/json.ts";
import { fuzz } from "../fuzz/attempts.ts";
import { spoiltBytes, spoiltJson } from "../fuzz/mutate.ts";
import { memorySource, memoryStore } from "../support/memory-store.ts";

const folder = new URL("../../fixtures/hostile/pickles/", import.meta.url);
const read = (name: string) => new Uint8Array(readFileSync(new URL(name, folder)));

/** Opcodes of every protocol, one after the other: chance soon makes them nest, call, build and look up. */
const OPCODES = Buffer.from(
  "()]}lt0125RabceghijopqrsuNIJKLMGFSTUVXBCPQ\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97.",
  "latin1",
);

describe("pickles", () => {
  const pickles = [
    read("dcp-base/.metadata"),
    read("memo-bomb.pt").subarray(46),
    read("benign-tensor.pt").subarray(46, 175),
  ];
  it.each(pickles.map((bytes, i) => [i, bytes] as const))("spoilt, %i", async (_, bytes) => {
    await fuzz(1500, (random) => readPickle(spoiltBytes(bytes, random), { file: "x" }).value);
  });

  it("of opcodes by chance", async () => {
    await fuzz(3000, (random) => {
      const bytes = Uint8Array.from({ length: 1 + random(200) }, () =>
        random(4) === 0 ? random(256) : OPCODES[random(OPCODES.byteLength)]!,
      );
      return readPickle(Buffer.concat([Buffer.from("\x80\x02ctorch\nSize\n(", "latin1"), bytes]), {
        file: "x",
      }).value;
    });
  });
});

describe("torch archives", () => {
  it.each(["benign-tensor.pt", "zip-huge-size.pt", "proto-pollution.pt"])("%s, spoilt", async (name) => {
    const bytes = read(name);
    await fuzz(800, (random) => readTorch(memorySource("x", spoiltBytes(bytes, random)), { file: "x" }));
  });

  it("parts of a .distcp that lie elsewhere", async () => {
    const bytes = read("dcp-base/__0_0.distcp");
    await fuzz(400, (random) => {
      const part = {
        offset: random(2) === 0 ? 0 : random(4000) - 200,
        size: random(2) === 0 ? 1705 : random(4000),
      };
      return readTorch(memorySource("x", bytes), { file: "x", part });
    });
  });
});

describe("tars", () => {
  it.each(["tar-pax-dotdot.nemo", "tar-no-config.nemo", "tar-ckpt-system.nemo"])(
    "%s, spoilt",
    async (name) => {
      const bytes = read(name);
      await fuzz(800, async (random) => {
        const store = await tarStore(memoryStore("m", new Map([["x", spoiltBytes(bytes, random)]])), "x");
        return `${(await store.list()).length} members`;
      });
    },
  );
});

it("descriptions of zarr arrays", async () => {
  const array = {
    ...{ chunks: [2, 4], compressor: null, dtype: "bfloat16", fill_value: null, filters: null },
    ...{ order: "C", shape: [4, 4], zarr_format: 2 },
  };
  await fuzz(1500, async (random) => {
    const text = Buffer.from(stringifyJson(spoiltJson(array, random)));
    const bytes = random(3) === 0 ? spoiltBytes(text, random) : text;
    const files = new Map<string, Uint8Array>([
      ["w/.zarray", bytes],
      ["w/0.0", new Uint8Array(16)],
      ["w/1.0", new Uint8Array(16)],
    ]);
    return readZarr(memoryStore("m", files), "");
  });
});
