import { cpSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge/format.ts";
import { fileStore } from "../../src/io/file.ts";
import { digestsOf } from "../support/content.ts";
import { codeOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const moe = await bridge.read(await fileStore(golden("megatron-bridge-moe")));

async function changed(name: string, change: (folder: string) => void) {
  const folder = join(work, name);
  cpSync(golden("megatron-bridge-moe"), folder, { recursive: true });
  change(folder);
  return fileStore(folder);
}

describe("a real distributed checkpoint of a hybrid with experts", () => {
  it("shows the model section, the tokenizer, and training state unread", () => {
    expect(moe.config).toMatchObject({ hybrid_layer_pattern: "MEM*-ME*", num_moe_experts: 4 });
    expect(moe.sidecars.map(({ path }) => path)).toEqual(["tokenizer.json", "tokenizer_config.json"]);
    expect(moe.objects).toEqual(
      expect.arrayContaining(["rng_state/shard_0.1_1.2", "common_state/shard_0_1"]),
    );
    const experts = moe.tensors.find(({ name }) => name.endsWith("1.mlp.experts.experts.linear_fc1.weight"));
    expect(experts?.shape).toEqual([4, 48, 64]);
    expect(moe.tensors.filter(({ dtype }) => dtype === "F32").map(({ name }) => name)).toEqual([
      "decoder.layers.1.mlp.router.expert_bias",
      "decoder.layers.6.mlp.router.expert_bias",
    ]);
  });

  it("is the iteration that the tracker names, or the one asked for", async () => {
    const store = await changed("two", (folder) => {
      cpSync(join(folder, "iter_0000100"), join(folder, "iter_0000200"), { recursive: true });
      rmSync(join(folder, "iter_0000200/tokenizer"), { recursive: true });
    });
    expect((await bridge.read(store)).sidecars).toHaveLength(2);
    expect((await bridge.read(store, { iteration: 200 })).sidecars).toHaveLength(0);
    expect(await codeOf(() => bridge.read(store, { iteration: 300 }))).toBe("NOT_FOUND");
  });

  it("is the latest where no tracker says", async () => {
    const store = await changed("untracked", (folder) => {
      rmSync(join(folder, "latest_checkpointed_iteration.txt"));
      cpSync(join(folder, "iter_0000100"), join(folder, "iter_0000020"), { recursive: true });
      rmSync(join(folder, "iter_0000020/tokenizer"), { recursive: true });
    });
    expect((await bridge.read(store)).sidecars).toHaveLength(2);
  });

  it.each([
    [
      "a release",
      "release",
      (folder: string) => renameSync(join(folder, "iter_0000100"), join(folder, "release")),
    ],
    ["spaces", " 100\n", () => {}],
  ])("is found where the tracker says %s", async (name, text, change) => {
    const store = await changed(name, (folder) => {
      change(folder);
      writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), text);
    });
    expect((await bridge.read(store)).tensors).toHaveLength(moe.tensors.length);
  });

  it("may be the folder of one iteration, or bare", async () => {
    const one = await fileStore(golden("megatron-bridge-moe/iter_0000100"));
    expect(await bridge.detect(one)).toBe("yes");
    expect(await digestsOf(await bridge.read(one))).toEqual(await digestsOf(moe));
    const folder = join(work, "bare");
    cpSync(golden("nemo2-tiny/weights"), folder, { recursive: true });
    rmSync(join(folder, "common.pt"));
    const bare = await bridge.read(await fileStore(folder));
    expect(bare.config).toEqual({});
    expect(bare.tensors.some(({ name }) => name === "embedding.word_embeddings.weight")).toBe(true);
  });

  it("refuses a tracker that names nothing", async () => {
    const store = await changed("astray", (folder) =>
      writeFileSync(join(folder, "latest_checkpointed_iteration.txt"), "../../etc"),
    );
    expect(await codeOf(() => bridge.read(store))).toBe("HEADER_INVALID");
  });

  it("says where a file is cut short", async () => {
    const store = await changed("cut", (folder) => {
      const file = join(folder, "iter_0000100/__1_0.distcp");
      writeFileSync(file, readFileSync(file).subarray(0, -300));
    });
    expect(await codeOf(() => bridge.read(store))).toBe("TRUNCATED");
  });
});
