/** Between Hugging Face and what NeMo and Megatron write: genuine checkpoints, and the way there and back. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { arraysOf, filesOf, golden, workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const quiet = { verify: "off", threads: 1 } as const;

/** Tensors of a folder's one weight file, by name. */
async function tensorsOf(folder: string): Promise<ReadonlyMap<string, string>> {
  const arrays = await arraysOf(join(folder, "model.safetensors"));
  return new Map(
    [...arrays]
      .map(
        ([name, { dtype, shape, bytes }]) =>
          [name, `${dtype} [${shape}] ${Buffer.from(bytes).toString("base64")}`] as const,
      )
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

describe("what real software wrote", () => {
  it.each<[string, string, ConvertOptions]>([
    ["nemo2-tiny", "nemo2-tiny/hf", {}],
    ["nemo2-tp2", "nemo2-tiny/hf", {}],
    ["megatron-tp2", "nemo2-tiny/hf", { vocabSize: 500 }],
    ["nemo1-tiny.nemo", "nemo2-tiny/hf", {}],
    ["nemo1-zarr-tp2.nemo", "nemo2-tiny/hf", { vocabSize: 500 }],
    ["megatron-bridge-moe", "megatron-bridge-moe/hf", {}],
  ])("%s is its twin %s, bit for bit", async (name, twin, options) => {
    const out = join(work, `${name} to hf`);
    await convert(golden(name), out, { ...quiet, to: "hf", ...options });
    expect(await tensorsOf(out)).toEqual(await tensorsOf(golden(twin)));
    const tokenizer = name.startsWith("megatron-tp2") || name.includes("zarr") ? null : "tokenizer.json";
    if (tokenizer !== null) {
      expect(readFileSync(join(out, tokenizer))).toEqual(readFileSync(join(golden(twin), tokenizer)));
    }
  });

  it("keeps padded rows, and warns, where nothing tells the true vocabulary", async () => {
    const warnings: string[] = [];
    const out = join(work, "padded");
    await convert(golden("megatron-tp2"), out, {
      ...quiet,
      to: "hf",
      watch: (event) => event.type === "warning" && warnings.push(event.message),
    });
    expect(warnings.join()).toMatch(/vocabulary is not known: all 512 rows are kept/);
    const head = (await arraysOf(join(out, "model.safetensors"))).get("lm_head.weight");
    expect(head?.shape).toEqual([512, 64]);
    expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8")).vocab_size).toBe(512);
  });
});

/** Groups, heads and experts that four ranks can share. */
const SHARED = {
  n_groups: 4,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  n_routed_experts: 4,
  moe_shared_expert_intermediate_size: 64,
  vocab_size: 500,
};

type Way = { readonly to: string; readonly tp?: number; readonly pp?: number };

describe("there and back", async () => {
  const small = await smallModel(join(work, "small"), "M-M*E-M*", SHARED);
  const ways: readonly [string, string, Way][] = [
    ...[1, 2, 4].flatMap((tp): [string, string, Way][] => [
      ["small", small, { to: "nemo2", tp }],
      ["small", small, { to: "bridge", tp }],
      ...[1, 2].map((pp): [string, string, Way] => ["small", small, { to: "megatron", tp, pp }]),
    ]),
    // each golden each way: test/long/there-and-back.test.ts
    ["tiny", golden("tiny"), { to: "megatron" }],
    ["tiny-t5", golden("tiny-t5"), { to: "bridge" }],
    ["moe", golden("moe"), { to: "nemo2", tp: 4 }],
    ["latent-moe", golden("latent-moe"), { to: "bridge" }],
    ["sharded", golden("sharded"), { to: "megatron", tp: 2, pp: 2 }],
  ];
  const titled = ways.map(
    ([name, source, way]) => [`${name} by way of ${Object.entries(way).join(" ")}`, source, way] as const,
  );
  it.each(titled)("%s is the same, side files included", async (name, source, way) => {
    const [there, back] = [join(work, name), join(work, `${name}, back`)];
    await convert(source, there, { ...quiet, ...way });
    await convert(there, back, { ...quiet, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(source));
  });

  it("ranks to other ranks, by none: the same as straight", async () => {
    const [two, four, straight] = ["tp2", "tp2 to tp4", "tp4"].map((name) => join(work, `chain ${name}`)) as [
      string,
      string,
      string,
    ];
    await convert(small, two, { ...quiet, to: "megatron", tp: 2 });
    await convert(two, four, { ...quiet, to: "megatron", tp: 4, pp: 2 });
    await convert(small, straight, { ...quiet, to: "megatron", tp: 4, pp: 2 });
    const weights = (folder: string) => [...filesOf(folder)].filter(([path]) => path.startsWith("iter_"));
    expect(weights(four)).toEqual(weights(straight));
  });
});

describe("verified by logits on both sides' own tensors, certified, and home again", () => {
  it.each<[string, ConvertOptions]>([
    ["nemo2", { to: "nemo2", tp: 4 }],
    ["bridge", { to: "bridge" }],
    ["megatron", { to: "megatron", tp: 2, pp: 2 }],
  ])("%s", async (name, options) => {
    const [there, back] = [join(work, `${name} verified`), join(work, `${name} home`)];
    const { verification } = await convert(golden("sharded"), there, { ...options, tokens: 17 });
    expect(verification).toMatchObject({ verdict: "same", certificate: { signedBy: null } });
    expect((await verify(there)).verdict).toBe("same");
    await convert(there, back, { ...quiet, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(golden("sharded")));
  });
});
