/** What one format wrote inside another's wrapping: the same tensors, read from wherever they lie. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge/format.ts";
import { tarStore } from "../../formats/codec/tar/read.ts";
import type { Format } from "../../formats/format.ts";
import { nemo1 } from "../../formats/nemo1/format.ts";
import { nemo2 } from "../../formats/nemo2/format.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { fileStore } from "../../src/io/file.ts";
import { digestsOf } from "../support/content.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";

const work = workFolder();
const MAX_BYTES = 4 * 1024 * 1024;

/** Files of `store` whose path starts with `from`, under `to`. */
async function moved(store: Store, from: string, to: string): Promise<[string, Uint8Array][]> {
  const paths = (await store.list()).map(({ path }) => path).filter((path) => path.startsWith(from));
  return Promise.all(
    paths.map(async (path) => [to + path.slice(from.length), await readSmall(store, path, MAX_BYTES)]),
  );
}

const archive = await tarStore(await fileStore(golden("nemo1-zarr-tp2.nemo")), "nemo1-zarr-tp2.nemo");
const zarr = await digestsOf(await nemo1.read(await fileStore(golden("nemo1-zarr-tp2.nemo"))));
const folder = await fileStore(golden("nemo2-tp2"));

describe("zarr arrays", () => {
  it.each<[Format, readonly [Store, string, string][]]>([
    [
      nemo2,
      [
        [archive, "model_weights/", "weights/"],
        [folder, "context/", "context/"],
      ],
    ],
    [bridge, [[archive, "model_weights/", "iter_0000010/"]]],
    [bridge, [[archive, "model_weights/", "release/"]]],
    [bridge, [[archive, "model_weights/", ""]]],
  ])("are read in $id %#", async (format, parts) => {
    const files = await Promise.all(parts.map((part) => moved(...part)));
    const store = memoryStore("memory", new Map(files.flat()));
    expect(await format.detect(store)).toBe("yes");
    const checkpoint = await format.read(store);
    expect(await digestsOf(checkpoint)).toEqual(zarr);
    expect(checkpoint.objects).toContain("decoder.final_norm._extra_state/shard_0_1");
  });
});

describe("a gzipped archive", () => {
  it.each(["nemo1-tiny.nemo", "nemo1-zarr-tp2.nemo"])("%s is what it holds", async (name) => {
    const path = join(work, name);
    writeFileSync(path, gzipSync(readFileSync(golden(name))));
    const plain = await openCheckpoint(golden(name));
    const packed = await openCheckpoint(path);
    expect(packed.format).toBe("nemo1");
    expect(packed.config).toEqual(plain.config);
    expect(packed.sidecars.map(({ path }) => path)).toEqual(plain.sidecars.map(({ path }) => path));
    expect(await digestsOf(packed)).toEqual(await digestsOf(plain));
  });
});

it("an iteration is asked for by its number, through the library's front door", async () => {
  const address = golden("megatron-bridge-moe");
  expect((await openCheckpoint(address, { iteration: 100 })).format).toBe("bridge");
  await expect(openCheckpoint(address, { iteration: 7 })).rejects.toMatchObject({
    code: "NOT_FOUND",
  });
  await expect(openCheckpoint(golden("nemo2-tiny"), { iteration: 7 })).rejects.toMatchObject({
    code: "USAGE",
  });
});
