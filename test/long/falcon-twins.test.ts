/** Falcon-H1 to Megatron-Bridge and back: the same bytes, with and without the files that a conversion carries along. */
import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { countOf } from "../../src/core/dtype.ts";
import { errorOf } from "../support/errors.ts";
import { arraysOf, familyGolden, type StoredArray, workFolder } from "../support/goldens.ts";
import { falconInBridge, normed } from "../support/verify/falcon-copy.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const GOLDEN = familyGolden("falcon_h1");
const source = await copyOf(GOLDEN);

const TABLES = ["model.embed_tokens.weight", "lm_head.weight"];
const PADDED = ["embedding.word_embeddings.weight", "output_layer.weight"];
/** Bytes of a token table of 250 words. */
const ODD_BYTES = 250 * 64 * 2;

const bytesOf = (folder: string, file: string) => readFileSync(join(folder, file));
/** Shapes and digests of the tensors that a checkpoint stores, whatever their order. */
const held = (tensors: ReadonlyMap<string, StoredArray>) =>
  [...tensors]
    .map(([name, { shape, bytes }]) => [name, shape.join("x"), Buffer.from(bytes).toString("hex")])
    .sort();

/** The tensors of a folder as arrays, put together from their pieces in the order of rows. */
async function stored(folder: string): Promise<ReadonlyMap<string, StoredArray>> {
  const { tensors, store } = await openCheckpoint(folder);
  const arrays = new Map<string, StoredArray>();
  for (const { name, dtype, shape, pieces } of tensors) {
    const parts: Uint8Array[] = [];
    for (const piece of [...pieces].sort((a, b) => a.start[0]! - b.start[0]!)) {
      await using file = await store.open(piece.file);
      const bytes = new Uint8Array(2 * countOf(piece.shape));
      await file.readInto(bytes, piece.offset);
      parts.push(bytes);
    }
    arrays.set(name, { dtype, shape, bytes: Buffer.concat(parts) });
  }
  return arrays;
}

/** The golden model with a vocabulary that no number of ranks divides. */
const odd = new Editor(source);
odd.config({ vocab_size: 250 });
for (const name of TABLES) {
  const { bytes } = odd.get(name);
  odd.put(name, { shape: [250, 64], bytes: bytes.slice(0, ODD_BYTES) });
}

describe.each([
  ["tensor parallel size 1", { tp: 1 }, source, 512],
  ["tensor parallel size 2", { tp: 2 }, source, 512],
  ["the norm inside the mixer", { tp: 2 }, normed(source), 512],
  ["a vocabulary that must be padded", { tp: 2 }, odd.copy, 256],
] as const)("%s", (what, options, copy, rows) => {
  const of = (name: string) => join(work, `${what.replaceAll(" ", "-")}-${name}`);
  const [from, there, back] = [of("hf"), of("bridge"), of("back")];
  written(copy, from);

  it("to bridge is the same model, every control caught", async () => {
    const { verification } = await convert(from, there, { to: "bridge", ...options });
    expect(verification).toMatchObject({ verdict: "same" });
    expect(await inspect(there)).toMatchObject({ family: "falcon_h1", format: "bridge" });
    expect(await check(there)).toMatchObject({ ok: true, findings: [{ rule: "left-out" }] }); // extra states
    expect(await diff(from, there, { weights: true })).toMatchObject({ equal: true });
  });

  it("holds the tensors that hand-made cuts hold", async () => {
    const cut = new Editor(falconInBridge(copy, rows));
    // padding is zeros
    if (rows === 256) for (const name of PADDED) cut.bytes(name, (bytes) => bytes.fill(0, ODD_BYTES));
    expect(held(await stored(there))).toEqual(held(cut.copy.tensors));
  });

  it("and back is the same bytes", async () => {
    const { verification } = await convert(there, back, { to: "hf" });
    expect(verification).toMatchObject({ verdict: "same" });
    for (const file of ["model.safetensors", "config.json", "tokenizer.json"])
      expect(bytesOf(back, file).equals(bytesOf(from, file)), file).toBe(true);
  });
});

/** A checkpoint that torch wrote on two ranks, with cuts and a record that follow Megatron-Bridge's source. */
describe("two ranks that torch.distributed.checkpoint wrote", () => {
  const torch = familyGolden("falcon_h1-bridge-tp2");

  it("become the golden model, byte for byte, and are proved to be it", async () => {
    const folder = join(work, "from-torch");
    const { verification } = await convert(torch, folder, { to: "hf" });
    expect(verification).toMatchObject({ verdict: "same" });
    const weights = (path: string) => arraysOf(join(path, "model.safetensors"));
    expect(held(await weights(folder))).toEqual(held(await weights(GOLDEN)));
    expect((await diff(GOLDEN, folder, { weights: true })).equal).toBe(true);
  });

  it("have the names and shapes that are written here", async () => {
    const there = join(work, "like-torch");
    await convert(GOLDEN, there, { to: "bridge", tp: 2, verify: "off" });
    const shapes = async (folder: string) =>
      (await openCheckpoint(folder)).tensors.map(({ name, shape }) => `${name} ${shape}`).sort();
    expect(await shapes(there)).toEqual(await shapes(torch));
  });
});

it("without the carried files config.json is written from the record, and the tensors are the same", async () => {
  const [there, bare, back] = ["whole", "bare", "bare-back"].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ];
  await convert(GOLDEN, there, { to: "bridge", verify: "off" });
  cpSync(there, bare, { recursive: true });
  rmSync(join(bare, "isologit.origin"), { recursive: true });
  const { verification } = await convert(bare, back, { to: "hf" });
  expect(verification).toMatchObject({ verdict: "same" });
  const weights = (folder: string) => arraysOf(join(folder, "model.safetensors"));
  expect(held(await weights(back))).toEqual(held(await weights(GOLDEN)));
  const config = JSON.parse(bytesOf(back, "config.json").toString());
  expect(config).toMatchObject({ model_type: "falcon_h1", key_multiplier: 0.6, mamba_d_ssm: 96 });
});

it("modules that strict loaders ask for have their extra state", async () => {
  const there = join(work, "states");
  await convert(GOLDEN, there, { to: "bridge", verify: "off" });
  const { objects } = await openCheckpoint(there);
  const modules = [
    ...["norm", "mamba_mixer.in_proj", "mamba_mixer.out_proj", "self_attention.linear_qkv"],
    ...["self_attention.linear_proj", "self_attention.core_attention", "mlp.linear_fc1", "mlp.linear_fc2"],
  ];
  const names = [0, 1, 2].flatMap((layer) => modules.map((module) => `decoder.layers.${layer}.${module}`));
  const all = [...names, "decoder.final_norm", "output_layer"];
  expect([...objects].sort()).toEqual(all.map((name) => `${name}._extra_state/shard_0_1`).sort());
});

it.each([
  ["nemo2", /nemo2: only Megatron-Bridge/],
  ["megatron", /megatron-ranks: only Megatron-Bridge/],
])("%s has no Falcon-H1, and the error says why", async (to, message) => {
  const error = await errorOf(() => plan(GOLDEN, join(work, `to-${to}`), { to }));
  expect(error).toMatchObject({ code: "UNSUPPORTED", message: expect.stringMatching(message) });
});

it("what a record cannot say is refused when the conversion is planned", async () => {
  const editor = new Editor(source);
  editor.config({ rope_scaling: { rope_type: "yarn", factor: 2, original_max_position_embeddings: 64 } });
  const from = written(editor.copy, join(work, "yarn"));
  const error = await errorOf(() => plan(from, join(work, "yarn-bridge"), { to: "bridge" }));
  expect(error).toMatchObject({ code: "PLAN_IMPOSSIBLE", message: expect.stringContaining("rope_scaling") });
});
