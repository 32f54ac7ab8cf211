/**
 * GGUF of Granite 4.0, Bamba, Falcon-H1 and Nemotron: files of the genuine converter, files that are written here and llama.cpp's
 * logits on them, what llama.cpp cannot run, and faults.
 */
import { createHash } from "node:crypto";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { logits } from "../../src/api/logits.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { relL2 } from "../../src/core/distance.ts";
import { bytesOf, type DType, isFloat } from "../../src/core/dtype.ts";
import { widen } from "../../src/core/float.ts";
import { MULTIPLIERS } from "../../src/families/falcon_h1/multipliers.ts";
import { fileStore } from "../../src/io/file.ts";
import { changedTensor, exchange } from "../support/changed-gguf.ts";
import { errorOf } from "../support/errors.ts";
import { changeConfig } from "../support/foreign.ts";
import {
  arraysOf,
  familyGolden,
  filesOf,
  floatsOf,
  ggufGolden,
  idsOf,
  workFolder,
} from "../support/goldens.ts";
import {
  graniteOfAttention,
  graniteWithoutExperts,
  nemotronWithHeadsOf16,
  withOneGroup,
} from "../support/llama-shapes.ts";
import { metricsWith } from "../support/rungs.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const run = { backend: "wasm", threads: 1, tokens: 8 } as const;
const unverified = { verify: "off", threads: 1 } as const;
const genuine = (name: string) => ggufGolden(`families/${name}-bf16.gguf`);

const COPIES = {
  granitemoehybrid: await withOneGroup("granitemoehybrid"),
  granite_dense: await graniteWithoutExperts(),
  granite_attention: await graniteOfAttention(),
  bamba: await withOneGroup("bamba"),
  nemotron: await nemotronWithHeadsOf16(),
  falcon_h1: await copyOf(familyGolden("falcon_h1")),
};
type Name = keyof typeof COPIES;
const NAMES = Object.keys(COPIES) as readonly Name[];
const folderOf = Object.fromEntries(
  NAMES.map((name) => [name, written(COPIES[name], join(work, name))]),
) as Readonly<Record<Name, string>>;

/** The elements of each tensor of a GGUF, by name. */
async function tensorsIn(path: string): Promise<ReadonlyMap<string, { dtype: DType; bytes: Buffer }>> {
  const { tensors } = await gguf.read(await fileStore(path));
  const file = readFileSync(path);
  return new Map(
    tensors.map(({ name, dtype, shape, pieces }) => {
      const at = pieces[0]!.offset;
      return [name, { dtype, bytes: file.subarray(at, at + bytesOf(dtype, shape)) }];
    }),
  );
}

/** One digest of all names and elements. */
async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for (const [name, { bytes }] of [...(await tensorsIn(path))].sort(([a], [b]) => (a < b ? -1 : 1)))
    hash.update(name).update(bytes);
  return hash.digest("hex");
}

describe.each(NAMES)("%s", (name) => {
  const file = join(work, `${name}.gguf`);

  it("is the same model, each deliberate fault is found, and it comes back with every file as it was", async () => {
    const { verification } = await convert(folderOf[name], file, run);
    expect(verification!.verdict).toBe("within");
    for (const { role, error } of verification!.tensors!) expect(error?.relL2 ?? 0, role).toBe(0);
    const { controls } = metricsWith(verification!, "logits", "controls");
    expect(controls.filter(({ caught }) => caught !== true)).toEqual([]);
    const back = join(work, `${name} back`);
    await convert(file, back, { ...run, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(folderOf[name]));
  });

  it("becomes the same GGUF from the GGUF", async () => {
    const again = join(work, `${name} again.gguf`);
    const { verification } = await convert(file, again, run);
    expect([verification!.verdict, await digestOf(again)]).toEqual(["same", await digestOf(file)]);
  });
});

/** The files that llama.cpp ran, and its logits. */
const RAN = ["granitemoehybrid", "granite_dense", "bamba", "nemotron", "falcon_h1"] as const;
const recorded = await arraysOf(ggufGolden("families/logits.safetensors"));
const digests: Readonly<Record<string, string>> = JSON.parse(
  readFileSync(ggufGolden("families/written.json"), "utf8"),
);

it.each(RAN)("%s in F32 is the file that llama.cpp ran, and has its logits", async (name) => {
  const [file, out] = [join(work, `${name} f32.gguf`), join(work, `${name}.safetensors`)];
  await convert(folderOf[name], file, { ...unverified, dtype: "f32" });
  expect(await digestOf(file)).toBe(digests[name]);
  await logits(file, { out, ids: idsOf(recorded.get("input_ids")!), backend: "wasm", threads: 1 });
  const found = floatsOf((await arraysOf(out)).get("logits")!);
  expect(relL2(floatsOf(recorded.get(`logits.${name}`)!), found)).toBeLessThan(2e-5);
});

describe.each(["granitemoehybrid", "bamba", "nemotron"] as const)("%s, by the genuine converter", (name) => {
  it("is the model of its folder", async () => {
    const { verdict, tensors } = await verify(folderOf[name], genuine(name), run);
    expect(verdict).toBe("within");
    for (const { role, error } of tensors!) expect(error?.relL2 ?? 0, role).toBe(0);
  });

  it("gives every tensor of its folder back, byte for byte", async () => {
    const back = join(work, `${name} from genuine`);
    await convert(genuine(name), back, { ...unverified, to: "hf", dtype: "bf16" });
    const found = await arraysOf(join(back, "model.safetensors"));
    const wanted = COPIES[name].tensors;
    expect([...found.keys()].sort()).toEqual([...wanted.keys()].sort());
    for (const [key, { bytes, ...form }] of wanted) {
      const { bytes: own, ...ownForm } = found.get(key)!;
      expect([ownForm, Buffer.from(own).equals(bytes)], key).toEqual([form, true]);
    }
  });
});

it.each(["granitemoehybrid", "nemotron"] as const)(
  "%s has the bytes of the genuine converter",
  async (name) => {
    const theirs = await tensorsIn(genuine(name));
    const ours = await tensorsIn(join(work, `${name}.gguf`));
    expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [key, { dtype, bytes }] of theirs) {
      if (key.endsWith("ssm_a")) continue; // the exponential of torch is not rounded correctly
      expect(ours.get(key)!.dtype, key).toBe(dtype);
      expect(ours.get(key)!.bytes.equals(bytes), key).toBe(true);
    }
  },
);

it("bamba pairs only the rows of a head that are turned: the genuine converter pairs those of whole heads", async () => {
  const [ours, theirs] = [await tensorsIn(join(work, "bamba.gguf")), await tensorsIn(genuine("bamba"))];
  const unlike = [...theirs].filter(([key, { bytes }]) => !ours.get(key)!.bytes.equals(bytes));
  const names = unlike.map(([key]) => key).filter((key) => !key.endsWith("ssm_a"));
  expect(names.sort()).toEqual(["blk.2.attn_k.weight", "blk.2.attn_q.weight"]);
});

describe("falcon_h1", () => {
  it("stores the products of the genuine converter", async () => {
    const theirs = await tensorsIn(genuine("falcon_h1"));
    const ours = await tensorsIn(join(work, "falcon_h1.gguf"));
    expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [key, { dtype, bytes }] of theirs) {
      const own = ours.get(key)!;
      if (!isFloat(dtype) || !isFloat(own.dtype)) throw new Error(`${key} is ${dtype}`);
      const values = widen(own.dtype, Uint8Array.from(own.bytes));
      const rounded = widen(dtype, Uint8Array.from(bytes)); // products in BF16
      const isNear = (value: number, i: number) => Math.abs(values[i]! - value) <= Math.abs(value) * 2 ** -8;
      expect([rounded.length, rounded.every(isNear)], key).toEqual([values.length, true]);
    }
  });

  it("of the genuine converter is a model whose multipliers are 1", async () => {
    const back = join(work, "falcon from genuine");
    const { verification } = await convert(genuine("falcon_h1"), back, { ...run, to: "hf" });
    expect(verification!.verdict).toBe("within");
    const config = JSON.parse(readFileSync(join(back, "config.json"), "utf8"));
    expect([config.embedding_multiplier, config.ssm_multipliers]).toEqual([1, [1, 1, 1, 1, 1]]);
  });

  it("written from a GGUF, its certificate is about the values and not about the products", async () => {
    const [file, again] = ["falcon_h1.gguf", "falcon again.gguf"].map((name) => join(work, name));
    const { verification } = await convert(file!, again!, run);
    expect(verification!.verdict).toBe("same");
    expect((await verify(again!, undefined, run)).verdict).toBe("same");
  });

  it("becomes a checkpoint of Megatron-Bridge", async () => {
    const bridge = join(work, "falcon bridge");
    const { verification } = await convert(join(work, "falcon_h1.gguf"), bridge, { ...run, to: "bridge" });
    expect(verification!.verdict).toBe("within");
  });

  it.each(["bf16", "q8_0"] as const)("is not written in %s", async (dtype) => {
    const error = await errorOf(() => plan(folderOf.falcon_h1, join(work, "x.gguf"), { dtype }));
    expect([error.code, error.message]).toEqual(["PLAN_IMPOSSIBLE", expect.stringMatching(/only F32 gives/)]);
  });

  it("with weights in F32 is refused, whose products do not give them back", async () => {
    const wide = join(work, "falcon wide");
    await convert(folderOf.falcon_h1, wide, { ...unverified, to: "hf", dtype: "f32" });
    const error = await errorOf(() => plan(wide, join(work, "x.gguf")));
    expect([error.code, error.message]).toEqual(["PLAN_IMPOSSIBLE", expect.stringMatching(/would not come/)]);
  });

  it("without multipliers can be quantised; in blocks of products the weights are not found again", async () => {
    const folder = join(work, "falcon without multipliers");
    cpSync(folderOf.falcon_h1, folder, { recursive: true });
    const ones = Object.fromEntries(Object.values(MULTIPLIERS).map((key) => [key, 1]));
    changeConfig(folder, { ...ones, ssm_multipliers: [1, 1, 1, 1, 1], mlp_multipliers: [1, 1] });
    const file = join(work, "falcon q8_0.gguf");
    const { verification } = await convert(folder, file, { ...run, dtype: "q8_0" });
    expect(verification!.verdict).toBe("within");
    const bytes = readFileSync(file);
    const key = "isologit.multipliers.key_multiplier";
    bytes.writeDoubleLE(0.6, bytes.indexOf(key) + key.length + 4); // after its type
    const products = join(work, "falcon products.gguf");
    writeFileSync(products, bytes);
    const error = await errorOf(() => plan(products, join(work, "x"), { to: "hf", dtype: "bf16" }));
    expect([error.code, error.exit, error.at.tensor]).toEqual(["UNSUPPORTED", 3, "token_embd.weight"]);
    expect((await inspect(products)).family).toBe("falcon_h1");
  });
});

it("a multiplier that F32 does not give back is in a key of our own", async () => {
  const folder = join(work, "exact");
  cpSync(folderOf.granite_dense, folder, { recursive: true });
  changeConfig(folder, { embedding_multiplier: 0.5946035575013605 });
  const file = join(work, "exact.gguf");
  const { verification } = await convert(folder, file, { ...run, to: "gguf" });
  expect(verification!.verdict).toBe("within");
  const { config } = await gguf.read(await fileStore(file));
  const key = "isologit.exact.granitehybrid.embedding_scale";
  expect([config[key], config["granitehybrid.residual_scale"]]).toEqual([
    0.5946035575013605,
    Math.fround(0.6),
  ]);
});

it.each<[Name, string]>([
  ["granite_attention", "granitemoe"],
  ["granitemoehybrid", "granitehybrid"],
])("%s has the architecture %s", async (name, architecture) => {
  const { config } = await gguf.read(await fileStore(join(work, `${name}.gguf`)));
  expect(config["general.architecture"]).toBe(architecture);
});

describe("what llama.cpp would run wrongly, or not at all", () => {
  it.each<[string, string, object, RegExp]>([
    [familyGolden("granitemoehybrid"), "a norm over two groups", {}, /norms each of the 2 groups/],
    [familyGolden("bamba"), "a norm over two groups", {}, /norms each of the 2 groups/],
    [familyGolden("nemotron"), "queries of another width", {}, /reads queries of the hidden width/],
    [folderOf.granitemoehybrid, "limits of time steps", { time_step_limit: [0.001, 0.1] }, /does not clamp/],
    [folderOf.granitemoehybrid, "a multiplier of 0", { residual_multiplier: 0 }, /reads residual_scale 0/],
    [folderOf.falcon_h1, "a multiplier of 0", { key_multiplier: 0 }, /would be multiplied by 0/],
    [
      folderOf.granite_attention,
      "no positions",
      { position_embedding_type: "nope" },
      /it turns the heads of models with experts and without Mamba layers/,
    ],
    [
      folderOf.granite_attention,
      "scaled positions",
      { rope_scaling: { rope_type: "linear", factor: 2 } },
      /without linear scaling/,
    ],
    [
      folderOf.nemotron,
      "scaling as in Llama 3.1",
      {
        rope_scaling: {
          ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
          original_max_position_embeddings: 8192,
        },
      },
      /no factors of rotary frequencies/,
    ],
  ])("%s with %s is refused before anything is written", async (source, what, config, says) => {
    const folder = join(work, `${what} of ${source.split("/").at(-1)}`);
    cpSync(source, folder, { recursive: true });
    const error = await errorOf(() => plan(changeConfig(folder, { ...config }), join(work, "x.gguf")));
    expect([error.code, error.exit]).toEqual(["PLAN_IMPOSSIBLE", 2]);
    expect(error.message).toMatch(says);
  });
});

it("gains of Nemotron that their sums with 1 do not give back come back from a key of our own", async () => {
  const editor = new Editor(COPIES.nemotron);
  const gain = "model.layers.1.input_layernorm.weight";
  const values = Float32Array.from({ length: 64 }, (_, i) => (i % 2 === 0 ? 1e-9 : 0.3) * (i - 30.3));
  editor.put(gain, { dtype: "F32", bytes: new Uint8Array(values.buffer) });
  const [folder, file, back] = ["gains", "gains.gguf", "gains back"].map((name) => join(work, name));
  const { verification } = await convert(written(editor.copy, folder!), file!, { ...run, to: "gguf" });
  expect(verification!.verdict).toBe("within");
  const { config } = await gguf.read(await fileStore(file!));
  expect(config["isologit.values.blk.1.attn_norm.weight"]).toEqual([...values]);
  await convert(file!, back!, { ...unverified, to: "hf" });
  expect(filesOf(back!)).toEqual(filesOf(folder!));
});

const floats = (of: (value: number, index: number) => number) => (bytes: Buffer) => {
  for (let at = 0; at < bytes.length; at += 4) bytes.writeFloatLE(of(bytes.readFloatLE(at), at / 4), at);
};

const reverseTaps = (bytes: Buffer) => {
  for (let at = 0; at < bytes.length; at += 16) {
    exchange(bytes, at, at + 12, 4);
    exchange(bytes, at + 4, at + 8, 4);
  }
};

describe("planted faults", () => {
  it.each<[Name, string, string, number, (bytes: Buffer, rowBytes: number) => void]>([
    [
      ...(["granitemoehybrid", "two experts exchanged", "blk.1.ffn_up_exps.weight", 3] as const),
      (b) => exchange(b, 0, b.length / 6, b.length / 6),
    ],
    [
      ...(["granitemoehybrid", "taps of the convolution reversed", "blk.3.ssm_conv1d.weight", 6] as const),
      reverseTaps,
    ],
    [
      "granitemoehybrid",
      "dt bias of two heads exchanged",
      "blk.0.ssm_dt.bias",
      0,
      (b) => exchange(b, 0, 4, 4),
    ],
    ["granitemoehybrid", "numbers of two heads exchanged", "blk.1.ssm_a", 2, (b) => exchange(b, 0, 4, 4)],
    [
      ...(["granitemoehybrid", "rows of queries not in pairs", "blk.2.attn_q.weight", 4] as const),
      (b, row) => exchange(b, row, 2 * row, row),
    ],
    [
      ...(["bamba", "pairs of turned rows parted", "blk.2.attn_k.weight", 4] as const),
      (b, row) => exchange(b, row, 2 * row, row),
    ],
    [
      "bamba",
      "the norm of a mixer halved",
      "blk.1.ssm_norm.weight",
      2,
      floats((v, i) => (i < 64 ? v / 2 : v)),
    ],
    ["nemotron", "a gain less 1", "blk.1.ffn_norm.weight", 3, floats((v) => v - 1)],
    ["nemotron", "the last gain less 1", "output_norm.weight", 8, floats((v) => v - 1)],
    ["falcon_h1", "keys without their multiplier", "blk.1.attn_k.weight", 2, floats((v) => v / 0.6)],
    [
      ...(["falcon_h1", "time steps with the multiplier of C", "blk.0.ssm_in.weight", 0] as const),
      floats((v, i) => (i >= 256 * 64 ? (v / 1.1) * 1.4 : v)),
    ],
    ["falcon_h1", "a head without its multiplier", "output.weight", 6, floats((v) => v / 0.45)],
    ["falcon_h1", "words without their multiplier", "token_embd.weight", -1, floats((v) => v / 2.2)],
  ])("%s, %s: found in its layer", async (name, _, tensor, layer, change) => {
    const file = await changedTensor(work, join(work, `${name}.gguf`), tensor, change);
    const { verdict, firstDivergence } = await verify(folderOf[name], file, run);
    expect([verdict, firstDivergence?.layer]).toEqual(["different", layer]);
  });

  it.each<[Name, string, (bytes: Buffer, at: number) => void, RegExp]>([
    [
      ...(["falcon_h1", "isologit.multipliers.key_multiplier"] as const),
      (bytes, at) => bytes.writeDoubleLE(0, at),
      /key_multiplier is 0; it must be a number, and not 0/,
    ],
    [
      ...(["falcon_h1", "isologit.multipliers.ssm_multipliers.4"] as const),
      (bytes, at) => bytes.writeDoubleLE(Number.NaN, at),
      /ssm_multipliers.4 is NaN/,
    ],
    [
      ...(["bamba", "granitehybrid.rope.dimension_count"] as const),
      (bytes, at) => bytes.writeUInt32LE(4, at),
      /must be half of a head, which has 16 elements/,
    ],
  ])("%s with another %s is refused", async (name, key, change, says) => {
    const bytes = readFileSync(join(work, `${name}.gguf`));
    change(bytes, bytes.indexOf(key) + key.length + 4); // after its type
    const path = join(work, `${name} with another ${key}.gguf`);
    writeFileSync(path, bytes);
    const error = await errorOf(() => inspect(path));
    expect([error.code, error.exit, error.message]).toEqual([
      "CONFIG_INVALID",
      3,
      expect.stringMatching(says),
    ]);
  });

  it("a gain that is no number is refused", async () => {
    const file = await changedTensor(work, join(work, "nemotron.gguf"), "blk.0.attn_norm.weight", (bytes) =>
      bytes.writeFloatLE(Number.NaN, 4),
    );
    const error = await errorOf(() => verify(folderOf.nemotron, file, run));
    expect([error.code, error.exit, error.at.tensor]).toEqual(["NON_FINITE", 3, "blk.0.attn_norm.weight"]);
  });
});
