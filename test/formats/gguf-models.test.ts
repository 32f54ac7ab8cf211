/** GGUF as models: files that llama.cpp's own tools wrote, files that are written here, and what llama.cpp cannot run. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { smallModel } from "../../src/conformance/small-model.ts";
import type { TypedValue } from "../../src/core/checkpoint.ts";
import { fileStore } from "../../src/io/file.ts";
import { changedTensor, exchange } from "../support/changed-gguf.ts";
import { errorOf } from "../support/errors.ts";
import { changeConfig } from "../support/foreign.ts";
import { arraysOf, familyGolden, filesOf, ggufGolden, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const run = { backend: "wasm", threads: 1, tokens: 8 } as const;
const unverified = { verify: "off", threads: 1 } as const;

/** A file of the genuine converter, and the folder that it was made from. */
const GENUINE = [
  ["tiny-split", "tiny"],
  ["latent-moe-bf16.gguf", "latent-moe"],
] as const;

describe.each(GENUINE)("%s, by the genuine converter", (file, twin) => {
  it("is the model of its folder, and each deliberate fault is found", async () => {
    const { verdict, tensors } = await verify(golden(twin), ggufGolden(file), run);
    expect(verdict).toBe("within");
    for (const { role, error } of tensors!) expect(error?.relL2 ?? 0, role).toBe(0);
  });

  it("gives every tensor of its folder back, byte for byte", async () => {
    const back = join(work, `${twin} from genuine`);
    await convert(ggufGolden(file), back, { ...unverified, to: "hf", dtype: "bf16" });
    const found = await arraysOf(join(back, "model.safetensors"));
    const wanted = await arraysOf(join(golden(twin), "model.safetensors"));
    expect([...found.keys()].sort()).toEqual([...wanted.keys()].sort());
    for (const [name, array] of wanted) expect(found.get(name), name).toEqual(array);
  });
});

it("a vector that is no BF16 stays F32, and so does the correction of a router, whatever it holds", async () => {
  const gain = await changedTensor(
    work,
    ggufGolden("latent-moe-bf16.gguf"),
    "blk.0.attn_norm.weight",
    (bytes) => bytes.writeFloatLE(1.0001, 0),
  );
  const both = await changedTensor(work, gain, "blk.1.exp_probs_b.bias", (bytes) => bytes.fill(0));
  const back = join(work, "mixed types");
  await convert(both, back, { ...unverified, to: "hf" });
  const arrays = await arraysOf(join(back, "model.safetensors"));
  const dtypes = ["0.norm.weight", "1.norm.weight", "1.mixer.gate.e_score_correction_bias"].map(
    (name) => arrays.get(`backbone.layers.${name}`)!.dtype,
  );
  expect(dtypes).toEqual(["F32", "BF16", "F32"]);
});

it("the tokenizer of its folder follows from the keys of a genuine file", async () => {
  const back = join(work, "tokenizer");
  await convert(ggufGolden("tiny-split"), back, { ...unverified, to: "hf" });
  const [found, wanted] = [back, golden("tiny")].map((folder) =>
    JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")),
  );
  expect(found).toEqual(wanted);
  const template = (folder: string) => readFileSync(join(folder, "chat_template.jinja"), "utf8");
  expect(template(back)).toBe(template(golden("tiny")));
  const config = JSON.parse(readFileSync(join(back, "tokenizer_config.json"), "utf8"));
  expect([config.bos_token, config.eos_token, config.unk_token]).toEqual(["<s>", "</s>", "<unk>"]);
});

it("carried files are not restored beside weights that changed", async () => {
  const file = join(work, "changed later.gguf");
  await convert(golden("tiny"), file, run);
  const changed = await changedTensor(work, file, "blk.1.ffn_up.weight", (bytes) =>
    exchange(bytes, 0, 128, 128),
  );
  const bytes = readFileSync(changed);
  writeFileSync(changed, bytes.subarray(0, bytes.lastIndexOf("ISOCERT\n") - 8)); // the certificate is of the other weights
  const warnings: string[] = [];
  const watch = (event: { type: string; message?: string }) => {
    if (event.type === "warning") warnings.push(event.message!);
  };
  await convert(changed, join(work, "not restored"), { ...run, to: "hf", watch });
  expect(warnings.filter((message) => /belongs to other weights/.test(message))).toHaveLength(1);
});

it("keys of carried files that contradict each other are refused", async () => {
  const file = join(work, "carried.gguf");
  await convert(golden("tiny"), file, unverified);
  const bytes = readFileSync(file);
  bytes.writeBigUInt64LE(
    2n ** 40n,
    bytes.indexOf("isologit.origin.sizes") + "isologit.origin.sizes".length + 16,
  );
  const lying = join(work, "lying.gguf");
  writeFileSync(lying, bytes);
  const error = await errorOf(() => inspect(lying));
  expect([error.code, error.exit]).toEqual(["HEADER_INVALID", 3]);
});

describe.each(["tiny", "tiny-t5", "moe", "latent-moe", "sharded"])("%s, written here", (name) => {
  it("comes back with every file as it was", async () => {
    const file = join(work, `${name}.gguf`);
    await convert(golden(name), file, unverified);
    const back = join(work, `${name} back`);
    await convert(file, back, { ...unverified, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(golden(name)));
  });
});

describe.each(["llama", "qwen2", "qwen3", "mixtral", "qwen3_moe"])("%s, written here", (name) => {
  it("is the same model, each deliberate fault is found, and it comes back with every file as it was", async () => {
    const file = join(work, `${name}.gguf`);
    const { verification } = await convert(familyGolden(name), file, run);
    expect(verification!.verdict).toBe("within");
    for (const { role, error } of verification!.tensors!) expect(error?.relL2 ?? 0, role).toBe(0);
    const back = join(work, `${name} back`);
    await convert(file, back, { ...unverified, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(familyGolden(name)));
  });
});

describe("the four numbers of Llama 3.1's scaling", () => {
  const scaled = (name: string, change: Record<string, number>) => {
    const folder = join(work, name);
    cpSync(familyGolden("llama"), folder, { recursive: true });
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    Object.assign(config.rope_scaling, change);
    writeFileSync(join(folder, "config.json"), JSON.stringify(config));
    return folder;
  };
  /** As llama.cpp's converter writes it: without keys of our own. */
  const asGenuine = async (folder: string) => {
    await convert(folder, `${folder}.gguf`, unverified);
    const bytes = readFileSync(`${folder}.gguf`, "latin1").replaceAll("isologit.rope.", "isologit.None.");
    writeFileSync(`${folder} genuine.gguf`, bytes, "latin1");
    return `${folder} genuine.gguf`;
  };
  const scalingOf = (folder: string) =>
    JSON.parse(readFileSync(join(folder, "config.json"), "utf8")).rope_scaling;

  it.each([
    { name: "Llama 3.1", change: {} },
    { name: "Llama 3.2", change: { factor: 32 } },
    { name: "16,384 positions", change: { original_max_position_embeddings: 16_384 } },
  ])("are found by the factors of a file of others: $name", async ({ name, change }) => {
    const folder = scaled(name, change);
    const back = join(work, `${name} back`);
    await convert(await asGenuine(folder), back, { ...unverified, to: "hf" });
    expect(scalingOf(back)).toMatchObject(scalingOf(folder));
    const [found, wanted] = [back, folder].map((path) => arraysOf(join(path, "model.safetensors")));
    expect(await found).toEqual(await wanted);
  });

  it("come from a similar model where the factors are not the usual ones", async () => {
    const folder = scaled("unusual", { low_freq_factor: 1.5 });
    const genuine = await asGenuine(folder);
    const error = await errorOf(() => inspect(genuine));
    expect([error.code, error.at.tensor]).toEqual(["CONFIG_INVALID", "rope_freqs.weight"]);
    const back = join(work, "unusual back");
    await convert(genuine, back, { ...unverified, to: "hf", like: folder });
    expect(scalingOf(back)).toMatchObject(scalingOf(folder));
    const other = await errorOf(() =>
      convert(genuine, join(work, "no"), { to: "hf", like: familyGolden("llama") }),
    );
    expect([other.code, other.message]).toEqual(["CONFIG_INVALID", expect.stringContaining("other factors")]);
  });

  it("are not guessed where the factors are no list of F32", async () => {
    const genuine = await asGenuine(scaled("halves", {}));
    const bytes = readFileSync(genuine);
    const at = bytes.indexOf("rope_freqs.weight") + "rope_freqs.weight".length + 4 + 8; // name, dimensions, length
    expect(bytes.readUInt32LE(at)).toBe(0); // F32
    bytes.writeUInt32LE(1, at); // F16
    writeFileSync(genuine, bytes);
    const error = await errorOf(() => inspect(genuine));
    expect([error.code, error.at.tensor]).toEqual(["HEADER_INVALID", "rope_freqs.weight"]);
  });

  it("must give the factors that llama.cpp would use", async () => {
    const file = join(work, "tampered.gguf");
    await convert(familyGolden("llama"), file, unverified);
    const other = await changedTensor(work, file, "rope_freqs.weight", (bytes) =>
      bytes.writeFloatLE(bytes.readFloatLE(20) * 1.001, 20),
    );
    const error = await errorOf(() => verify(familyGolden("llama"), other));
    expect([error.code, error.message]).toEqual(["CONFIG_INVALID", expect.stringContaining("other factors")]);
  });
});

it("has the keys of the genuine converter, with their types and values", async () => {
  const file = join(work, "keys.gguf");
  await convert(golden("tiny"), file, unverified);
  const keysOf = async (path: string) => {
    const { metadata } = await gguf.read(await fileStore(path));
    return new Map(metadata!.map((entry) => [entry.key, entry]));
  };
  const [ours, theirs] = [await keysOf(file), await keysOf(ggufGolden("tiny-split"))];
  /** keys of the parts of a split set; labels for people; the converter writes one length for every model */
  const apart = /^split\.|^general\.(name|size_label)$|context_length$/;
  const told = ({ type, value, count }: TypedValue) => ({ type, value, count });
  for (const [key, entry] of theirs)
    if (!apart.test(key)) expect(told(ours.get(key)!), key).toEqual(told(entry));
});

it("is converted with a certificate behind its last tensor", async () => {
  const file = join(work, "certified.gguf");
  const { verification } = await convert(golden("tiny"), file, run);
  expect(verification).toMatchObject({ verdict: "within" });
  expect((await verify(file, undefined, run)).verdict).toBe("same");
  expect((await check(file, { read: true })).findings).toEqual([]);
  const { family, sidecars } = await inspect(file);
  expect([family, sidecars]).toEqual([
    "nemotron-h",
    [
      "chat_template.jinja",
      "generation_config.json",
      "special_tokens_map.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ],
  ]);
});

describe("what llama.cpp would run wrongly, or not at all", () => {
  it.each<[string, string, object, RegExp]>([
    ["MLP and expert layers", "M*-E", {}, /makes every feed-forward layer one of experts/],
    ["no Mamba layer", "*-", {}, /needs a Mamba layer/],
    ["no attention layer", "M-", {}, /needs an attention layer/],
    ["limits of time steps", "M*", { time_step_limit: [0.001, 0.1] }, /does not clamp time steps/],
    ["heads of an odd width", "M*", { head_dim: 25 }, /heads of 25/],
    [
      "two prediction steps",
      "M*E",
      { num_nextn_predict_layers: 2, mtp_hybrid_override_pattern: "*E" },
      /2 of \*E/,
    ],
    [
      "a prediction step of other layers",
      "M*E",
      { num_nextn_predict_layers: 1, mtp_hybrid_override_pattern: "E" },
      /1 of E/,
    ],
  ])("%s is refused before anything is written", async (name, pattern, config, says) => {
    const folder = await smallModel(join(work, name), pattern, { ...config });
    const error = await errorOf(() => plan(folder, join(work, "x.gguf")));
    expect([error.code, error.exit]).toEqual(["PLAN_IMPOSSIBLE", 2]);
    expect(error.message).toMatch(says);
  });

  it("mistral is refused by name", async () => {
    const error = await errorOf(() => plan(familyGolden("mistral"), join(work, "x.gguf")));
    expect(error.message).toMatch(/no window of 24 tokens/);
  });

  it.each<[string, string, object, RegExp]>([
    [
      "qwen3_moe",
      "weights of experts that are not normalised",
      { norm_topk_prob: false },
      /divides the weights/,
    ],
    ["mixtral", "a window", { sliding_window: 16 }, /no window of 16 tokens/],
    [
      "llama",
      "YaRN with parameters of its own",
      { rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64, beta_fast: 16 } },
      /no keys for these parameters of YaRN/,
    ],
  ])("%s with %s is refused", async (name, what, config, says) => {
    const folder = join(work, `${name} with ${what}`);
    cpSync(familyGolden(name), folder, { recursive: true });
    const error = await errorOf(() => plan(changeConfig(folder, { ...config }), join(work, "x.gguf")));
    expect([error.code, error.exit]).toEqual(["PLAN_IMPOSSIBLE", 2]);
    expect(error.message).toMatch(says);
  });

  it("a tokenizer with more tokens than the table has rows is refused", async () => {
    const folder = await smallModel(join(work, "tokens"), "M*", {});
    cpSync(join(golden("tiny"), "tokenizer.json"), join(folder, "tokenizer.json"));
    const error = await errorOf(() => plan(folder, join(work, "x.gguf")));
    expect(error.message).toMatch(/the token table has 80 rows/);
  });
});

describe("planted faults", () => {
  const file = ggufGolden("latent-moe-bf16.gguf");
  it.each<[string, string, number, (bytes: Buffer, rowBytes: number) => void]>([
    [
      "two experts exchanged",
      "blk.1.ffn_up_exps.weight",
      1,
      (b) => exchange(b, 0, b.length / 12, b.length / 12),
    ],
    ["groups of the norm exchanged", "blk.0.ssm_norm.weight", 0, (b, row) => exchange(b, 0, row, row)],
    [
      "taps of the convolution reversed",
      "blk.4.ssm_conv1d.weight",
      4,
      (b) => {
        for (let at = 0; at < b.length; at += 16) {
          exchange(b, at, at + 12, 4);
          exchange(b, at + 4, at + 8, 4);
        }
      },
    ],
    ["dt bias of two heads exchanged", "blk.0.ssm_dt.bias", 0, (b) => exchange(b, 0, 4, 4)],
    ["numbers of two heads exchanged", "blk.0.ssm_a", 0, (b) => exchange(b, 0, 4, 4)],
    ["rows of queries not in pairs", "blk.2.attn_q.weight", 2, (b, row) => exchange(b, row, 2 * row, row)],
  ])("%s: found in its layer", async (_, tensor, layer, change) => {
    const changed = await changedTensor(work, file, tensor, change);
    const { verdict, firstDivergence } = await verify(golden("latent-moe"), changed, run);
    expect([verdict, firstDivergence?.layer]).toEqual(["different", layer]);
  });

  it("a number of a head that is no negative exponential is refused", async () => {
    const changed = await changedTensor(work, file, "blk.0.ssm_a", (bytes) => bytes.writeFloatLE(0.5, 4));
    const error = await errorOf(() => verify(golden("latent-moe"), changed, run));
    expect([error.code, error.exit, error.at.tensor]).toEqual(["NON_FINITE", 3, "blk.0.ssm_a"]);
  });
});
