import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nemo1 } from "../../formats/nemo1/format.ts";
import { nemo2 } from "../../formats/nemo2/format.ts";
import { fileStore } from "../../src/io/file.ts";
import { digestsOf, watchedStore } from "../support/content.ts";
import { codeOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();

/** A golden archive unpacked by tar itself. */
function unpacked(name: string, to: string): string {
  const folder = join(work, to);
  mkdirSync(folder);
  expect(spawnSync("tar", ["xf", golden(name), "-C", folder]).status).toBe(0);
  return folder;
}

describe("a real archive with one torch file", () => {
  it("shows its modules, its config and its tokenizer", async () => {
    const model = await nemo1.read(await fileStore(golden("nemo1-tiny.nemo")));
    expect(model.dialect).toBe("megatron-ranks");
    expect(model.tensors).toHaveLength(4 * 9 + 2 * 3 + 3 * 3 + 3);
    expect(model.tensors.every(({ name, rank }) => !name.startsWith("model.") && rank?.tp === 0)).toBe(true);
    expect(model.config).toMatchObject({
      vocab_size: 512,
      encoder_seq_length: 4096,
      max_position_embeddings: 4096,
    });
    expect(model.sidecars.map(({ path }) => path)).toEqual(["tokenizer.json"]);
  });

  it("is opened by headers alone", async () => {
    const { store, payloadBytes } = watchedStore(await fileStore(golden("nemo1-tiny.nemo")));
    const { tensors } = await nemo1.read(store);
    expect(payloadBytes(tensors)).toBeLessThanOrEqual(8192);
  });

  it("is the same unpacked", async () => {
    const packed = await nemo1.read(await fileStore(golden("nemo1-tiny.nemo")));
    const store = await fileStore(unpacked("nemo1-tiny.nemo", "unpacked"));
    expect(await nemo1.detect(store)).toBe("yes");
    expect(await digestsOf(await nemo1.read(store))).toEqual(await digestsOf(packed));
  });

  it("may lie in folders of ranks, for pipeline stages too", async () => {
    const folder = unpacked("nemo1-tiny.nemo", "ranks");
    for (const rank of ["tp_rank_00_pp_rank_000", "tp_rank_00_pp_rank_001"]) {
      mkdirSync(join(folder, rank));
      cpSync(join(folder, "model_weights.ckpt"), join(folder, rank, "model_weights.ckpt"));
    }
    rmSync(join(folder, "model_weights.ckpt"));
    const { tensors } = await nemo1.read(await fileStore(folder));
    expect(tensors.filter(({ rank }) => rank?.pp === 1)).toHaveLength(tensors.length / 2);
    renameSync(join(folder, "tp_rank_00_pp_rank_000"), join(folder, "tp_rank_00_pp_rank_003"));
    expect(await codeOf(async () => nemo1.read(await fileStore(folder)))).toBe("TENSOR_MISSING");
  });
});

describe("a real archive with zarr arrays of two ranks", () => {
  it("holds what the distributed checkpoint of the same model holds", async () => {
    const zarr = await nemo1.read(await fileStore(golden("nemo1-zarr-tp2.nemo")));
    const dist = await nemo2.read(await fileStore(golden("nemo2-tp2")));
    expect(await digestsOf(zarr)).toEqual(await digestsOf(dist));
    expect(zarr.objects).toContain("decoder.final_norm._extra_state/shard_0_1");
    expect(zarr.sidecars).toEqual([]);
  });
});

describe("what is no archive of NeMo 1", () => {
  it.each([
    ["a tar of something else", "x.tar", ["readme.txt"]],
    ["a config without weights", "y.nemo", ["model_config.yaml"]],
  ])("%s is refused", async (_, name, files) => {
    const folder = join(work, `${name}.d`);
    mkdirSync(folder);
    for (const file of files) writeFileSync(join(folder, file), "a: 1\n");
    expect(spawnSync("tar", ["cf", join(work, name), "-C", folder, ...files]).status).toBe(0);
    const store = await fileStore(join(work, name));
    expect(await codeOf(() => nemo1.read(store))).toBe("FORMAT_UNKNOWN");
  });

  it("bytes without a header's mark are not taken for one", async () => {
    writeFileSync(join(work, "zeros.nemo"), new Uint8Array(4096));
    expect(await nemo1.detect(await fileStore(join(work, "zeros.nemo")))).toBe("no");
  });
});
