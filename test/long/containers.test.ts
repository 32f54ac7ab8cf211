/**
 * Checkpoints that NeMo and Megatron wrote, and packed ones, against their Hugging Face twin: the same model, whichever
 * is asked about first. Then the same files with bytes changed inside them, as a wrong converter or a bad disk would
 * have: different at their layer, or refused.
 */
import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge/format.ts";
import { tarStore } from "../../formats/codec/tar/read.ts";
import type { Format } from "../../formats/format.ts";
import { formats } from "../../formats/index.ts";
import { megatron } from "../../formats/megatron/format.ts";
import { nemo1 } from "../../formats/nemo1/format.ts";
import { nemo2 } from "../../formats/nemo2/format.ts";
import { packed } from "../../formats/packed/format.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { type Checkpoint, tensorKey } from "../../src/core/checkpoint.ts";
import { countOf } from "../../src/core/dtype.ts";
import type { ErrorCode } from "../../src/core/errors.ts";
import { readSmall } from "../../src/core/io.ts";
import { extentsOf } from "../../src/core/read.ts";
import { fileStore } from "../../src/io/file.ts";
import { bytesIn } from "../support/content.ts";
import { codeOf } from "../support/errors.ts";
import { floatsOf, golden, workFolder } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";
import { codesOf, copyOf, Editor, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const TINY = golden("nemo2-tiny/hf");
const MOE = golden("megatron-bridge-moe/hf");
/** what the twins' config says; where only padded rows are stored, somebody has to */
const VOCAB = 500;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const score = keepScore("faults in files of NeMo and Megatron, and packed");

describe("is its twin, both ways", () => {
  it.each([
    ["nemo2-tiny", TINY, {}],
    ["nemo2-tp2", TINY, {}],
    ["nemo1-tiny.nemo", TINY, {}],
    ["nemo1-zarr-tp2.nemo", TINY, { vocabSize: VOCAB }],
    ["megatron-tp2", TINY, { vocabSize: VOCAB }],
    ["megatron-bridge-moe", MOE, {}],
  ])("%s", async (name, twin, told) => {
    for (const [a, b] of [
      [golden(name), twin],
      [twin, golden(name)],
    ] as const) {
      const report = await verify(a, b, { ...QUICK, ...told });
      expectClean(score, report, "same");
      expect(report.rungs.map(({ rung, verdict }) => `${rung} ${verdict}`)).toEqual([
        "cover same",
        "bytes same",
        "logits same",
      ]);
      expect(report.roots.a).toBe(report.roots.b);
    }
  });
});

/** The container's own files in memory, after `plant` moved bytes of tensors within them; what sealed them is forgotten. */
async function planted({ format, path }: Container, plant: (e: Editor) => void): Promise<Checkpoint> {
  const files = await filesIn(path);
  const checkpoint = await format.read(memoryStore("memory", files));
  const tensors = new Map(
    await Promise.all(
      checkpoint.tensors.map(async (tensor) => {
        const { dtype, shape } = tensor;
        return [tensorKey(tensor), { dtype, shape, bytes: await bytesIn(checkpoint.store, tensor) }] as const;
      }),
    ),
  );
  const editor = new Editor({ tensors, files });
  plant(editor);
  for (const tensor of checkpoint.tensors) {
    const { bytes } = editor.get(tensorKey(tensor));
    if (bytes === tensors.get(tensorKey(tensor))!.bytes) continue;
    for (const { file, offset, to, size } of extentsOf(tensor, 0, countOf(tensor.shape)))
      files.get(file)!.set(bytes.subarray(to, to + size), offset);
  }
  return { ...checkpoint, seals: [], hints: { vocab: VOCAB } };
}

/** The container's own files in memory, after `plant` changed them. */
async function damaged({ format, path }: Container, plant: (files: Map<string, Uint8Array>) => void) {
  const files = await filesIn(path);
  plant(files);
  return { ...(await format.read(memoryStore("memory", files))), hints: { vocab: VOCAB } };
}

/** Files of a folder, members of an archive, or a file. */
async function filesIn(path: string): Promise<Map<string, Uint8Array>> {
  const outside = await fileStore(path);
  const store = path.endsWith(".nemo") ? await tarStore(outside, basename(path)) : outside;
  const files = new Map<string, Uint8Array>();
  for (const { path } of await store.list())
    if (!path.startsWith("hf/")) files.set(path, await readSmall(store, path, MAX_FILE_BYTES));
  return files;
}

/** What holds one of the two models. */
interface Container {
  readonly format: Format;
  readonly path: string;
  readonly twin: string;
  /** a file of weights, and what is said where it is lost */
  readonly weights: RegExp;
  readonly lost: ErrorCode;
  /** what tells another config apart before it is believed, where the container has a checksum of it */
  readonly sealed?: ErrorCode;
  readonly tokenizer: boolean;
}

await convert(TINY, `${work}/tiny.isologit`, { to: "packed", verify: "off" });
const CONTAINERS: Readonly<Record<string, Container>> = {
  "nemo2-tiny": {
    ...{ format: nemo2, path: golden("nemo2-tiny"), twin: TINY, tokenizer: true },
    ...{ weights: /__0_0\.distcp$/, lost: "NOT_FOUND" },
  },
  "nemo2-tp2": {
    ...{ format: nemo2, path: golden("nemo2-tp2"), twin: TINY, tokenizer: true },
    ...{ weights: /__1_0\.distcp$/, lost: "NOT_FOUND" },
  },
  "megatron-bridge-moe": {
    ...{ format: bridge, path: golden("megatron-bridge-moe"), twin: MOE, tokenizer: true },
    ...{ weights: /__1_0\.distcp$/, lost: "NOT_FOUND" },
  },
  "megatron-tp2": {
    ...{ format: megatron, path: golden("megatron-tp2"), twin: TINY, tokenizer: false },
    ...{ weights: /mp_rank_01/, lost: "TENSOR_MISSING", sealed: "DIGEST_MISMATCH" },
  },
  "nemo1-tiny.nemo": {
    ...{ format: nemo1, path: golden("nemo1-tiny.nemo"), twin: TINY, tokenizer: true },
    ...{ weights: /model_weights\.ckpt$/, lost: "FORMAT_UNKNOWN" },
  },
  "nemo1-zarr-tp2.nemo": {
    ...{ format: nemo1, path: golden("nemo1-zarr-tp2.nemo"), twin: TINY, tokenizer: false },
    ...{ weights: /linear_fc1\.weight\/1\.0$/, lost: "TENSOR_MISSING" },
  },
  packed: {
    ...{ format: packed, path: `${work}/tiny.isologit`, twin: TINY, tokenizer: true },
    ...{ weights: /./, lost: "FORMAT_UNKNOWN", sealed: "DIGEST_MISMATCH" },
  },
};

it("no format is left out", () => {
  const tried = new Set(Object.values(CONTAINERS).map(({ format }) => format));
  const left = formats.filter((format) => !tried.has(format)).map(({ id }) => id);
  expect(left).toEqual(["hf", "gguf"]); // mutations.test.ts has hf; of gguf only headers are read
});

const keyOf = (e: Editor, name: RegExp) => [...e.copy.tensors.keys()].find((key) => name.test(key))!;
/** Both models have Mamba at 0, 2 and 5 and an MLP at 4; what comes after the last layer is the head's. */
const SPOTS: Readonly<Record<string, readonly [layer: number, plant: (e: Editor) => void]>> = {
  "two words swapped": [-1, (e) => e.swapRows(keyOf(e, /embeddings\.weight/), 5, 6, 1)],
  "conv taps reversed": [
    0,
    (e) => e.columns(keyOf(e, /layers\.0\.mixer\.conv1d[._]weight/), (tap, taps) => taps - 1 - tap),
  ],
  "a bit of out_proj": [2, (e) => e.flip(keyOf(e, /layers\.2\.mixer\.out_proj\.weight/), 77)],
  "up doubled": [
    4,
    (e) => e.values(keyOf(e, /layers\.4\.(mlp\.linear_fc1|mixer\.up_proj)\.weight/), (v) => 2 * v),
  ],
  "dt_bias dropped": [5, (e) => e.bytes(keyOf(e, /layers\.5\.mixer\.dt_bias/), (b) => b.fill(0))],
  "a bit of the last norm": [Infinity, (e) => e.flip(keyOf(e, /(final_norm|norm_f)\.weight/))],
};

/** `said` wherever a file has it, in place of which `lie` is put. */
function edit(files: ReadonlyMap<string, Uint8Array>, said: string | Uint8Array, lie: string | Uint8Array) {
  for (const bytes of files.values()) {
    const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(said);
    if (at !== -1) bytes.set(Buffer.from(lie as Uint8Array), at);
  }
}

/** A float in a pickle: eight bytes, the highest first. */
function binfloat(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value);
  return bytes;
}

describe.each(Object.entries(CONTAINERS))("%s", (_, container) => {
  const { twin, weights, lost, sealed, tokenizer } = container;
  const against = async (wrong: Checkpoint) =>
    verifyCheckpoints(await opened(await copyOf(twin)), wrong, QUICK);
  const refused = async (code: ErrorCode, plant: (files: Map<string, Uint8Array>) => void) => {
    score.planted++;
    expect(await codeOf(async () => against(await damaged(container, plant)))).toBe(code);
    score.caught++;
  };
  const covered = async (plant: (files: Map<string, Uint8Array>) => void) => {
    score.planted++;
    const { verdict, rungs } = await against(await damaged(container, plant));
    expect(verdict).toBe("different");
    expect(rungs[0]).toMatchObject({ rung: "cover", verdict: "different" });
    score.caught++;
  };
  const another = (files: Map<string, Uint8Array>) => {
    edit(files, "1.0e-05", "1.0e-06");
    edit(files, "1e-05", "1e-06");
    edit(files, binfloat(1e-5), binfloat(1e-6));
  };

  it.each(Object.entries(SPOTS))("%s", async (_, [layer, plant]) => {
    const report = await against(await planted(container, plant));
    expectNamed(score, report, Math.min(layer, twin === MOE ? 8 : 9));
  });

  it("another epsilon", () => (sealed === undefined ? covered(another) : refused(sealed, another)));

  if (tokenizer)
    it("another tokenizer", () => {
      const plant = (files: Map<string, Uint8Array>) => edit(files, "Whitespace", "whitespace");
      return sealed === undefined ? covered(plant) : refused(sealed, plant);
    });

  it("a file of weights lost", () =>
    refused(lost, (files) => {
      for (const path of [...files.keys()]) if (weights.test(path)) files.delete(path);
    }));

  it("a file of weights cut short", () =>
    refused("TRUNCATED", (files) => {
      for (const [path, bytes] of [...files]) if (weights.test(path)) files.set(path, bytes.subarray(0, -70));
    }));
});

describe("packed, in FP8", async () => {
  const coded = { ...CONTAINERS.packed!, path: `${work}/fp8.isologit` };
  await convert(TINY, coded.path, { to: "packed", dtype: "fp8-e4m3", recipe: "all-linear", verify: "off" });
  const plain = await copyOf(TINY);
  const [UP1, UP4] = [1, 4].map((layer) => `backbone.layers.${layer}.mixer.up_proj.weight`) as [
    string,
    string,
  ];

  it.each<[string, (e: Editor) => void]>([
    ["a scale 5 % too large", (e) => e.f32(`${UP1}_scale`, (scale) => scale * 1.05)],
    ["the neighbour's scale", (e) => e.swap(`${UP1}_scale`, `${UP4}_scale`)],
    ["a code one step off", (e) => e.flip(UP1, 77)],
    [
      "E5M2 codes called E4M3",
      (e) => {
        const [scale] = floatsOf(e.get(`${UP1}_scale`));
        e.put(UP1, { bytes: codesOf(plain.tensors.get(UP1)!, "F8_E5M2", scale!) });
      },
    ],
    [
      "a tensor skipped: its BF16 bytes under the name of codes",
      (e) => e.put(UP1, { bytes: plain.tensors.get(UP1)!.bytes.slice(0, e.get(UP1).bytes.byteLength) }),
    ],
  ])("%s", async (_, plant) => {
    expectNamed(score, await verifyCheckpoints(await opened(plain), await planted(coded, plant), QUICK), 1);
  });

  it("and nothing planted is within", async () => {
    const right = await planted(coded, () => {});
    expectClean(score, await verifyCheckpoints(await opened(plain), right, QUICK), "within");
  });
});

interface Fault {
  readonly name: string;
  readonly layer: number;
  readonly plant: (e: Editor) => void;
}

const on = (name: string, layer: number, plant: Fault["plant"]): Fault => ({ name, layer, plant });

/** tiny: M-M*-M-*M; 8 query heads and 2 key-value heads of 16: groups of 64, 16, 16 rows. moe: MEM*-ME*. */
const QKV = (layer: number) => `decoder.layers.${layer}.self_attention.linear_qkv.weight`;
const IN = (layer: number) => `decoder.layers.${layer}.mixer.in_proj.weight`;

/** Rows of q, k and v one after the other, put where rows by group belong. */
function ungrouped(row: number): number {
  const [group, at] = [Math.floor(row / 96), row % 96];
  return at < 64 ? group * 64 + at : at < 80 ? 128 + group * 16 + at - 64 : 160 + group * 16 + at - 80;
}

const FAULTS: Readonly<Record<string, Fault>> = {
  "q, k and v not by group": on("nemo2-tp2", 3, (e) => e.rows(QKV(3), ungrouped)),
  "q, k and v not by group, with experts": on("megatron-bridge-moe", 7, (e) => e.rows(QKV(7), ungrouped)),
  "two groups swapped": on("nemo2-tiny", 7, (e) => e.swapRows(QKV(7), 0, 96, 96)),
  "two groups swapped across ranks": on("megatron-tp2", 7, (e) =>
    e.swap(`${QKV(7)}@0.0.0`, `${QKV(7)}@1.0.0`),
  ),
  "z and x swapped": on("nemo2-tp2", 2, (e) => e.swap(`${IN(2)}.z`, `${IN(2)}.x`)),
  "z and x swapped, in zarr": on("nemo1-zarr-tp2.nemo", 8, (e) => e.swap(`${IN(8)}.z`, `${IN(8)}.x`)),
  "z and x of a slab swapped": on("nemo1-tiny.nemo", 5, (e) => e.swapRows(`${IN(5)}@0.0.0`, 0, 128, 128)),
  "B and C swapped": on("nemo2-tiny", 0, (e) => e.swap(`${IN(0)}.B`, `${IN(0)}.C`)),
  "B and C of a rank's slab swapped": on("megatron-tp2", 5, (e) =>
    e.swapRows(`${IN(5)}@1.0.0`, 128, 144, 16),
  ),
  "a rank's part doubled": on("megatron-tp2", 2, (e) =>
    e.values("decoder.layers.2.mixer.out_proj.weight@1.0.0", (v) => 2 * v),
  ),
  "the token table shifted by a row": on("nemo2-tp2", -1, (e) =>
    e.rows("embedding.word_embeddings.weight", (r, n) => (r + 1) % n),
  ),
  "the head shifted by a row": on("nemo1-zarr-tp2.nemo", 9, (e) =>
    e.rows("output_layer.weight", (r, n) => (r + 1) % n),
  ),
  "experts permuted": on("megatron-bridge-moe", 1, (e) =>
    e.rows("decoder.layers.1.mlp.experts.experts.linear_fc1.weight", (r) => [1, 2, 3, 0][r]!),
  ),
};

describe("layouts: a wrong one inside real files is different, at its layer", () => {
  it.each(Object.entries(FAULTS))("%s", async (_, { name, layer, plant }) => {
    const container = CONTAINERS[name]!;
    const twin = await opened(await copyOf(container.twin));
    const wrong = await planted(container, plant);
    const report = await verifyCheckpoints(twin, wrong, QUICK);
    expectNamed(score, report, layer);
    // by running it, not by its bytes alone, whichever is asked about first
    expect(report.rungs.find(({ rung }) => rung === "logits")?.verdict).toBe("different");
    const turned = await verifyCheckpoints(wrong, twin, QUICK);
    expect(turned).toMatchObject({ verdict: "different", firstDivergence: { layer } });
  });

  it("and nothing planted is the same", async () => {
    const untouched = await planted(CONTAINERS["megatron-tp2"]!, () => {});
    const report = await verifyCheckpoints(await opened(await copyOf(TINY)), untouched, QUICK);
    expectClean(score, report, "same");
  });
});
