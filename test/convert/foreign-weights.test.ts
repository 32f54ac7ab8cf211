/** Which files of other people's folders are the weights, what lies beside them, and what becomes of either. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { digestsOf } from "../support/content.ts";
import {
  copyGolden,
  INDEX,
  type Sharded,
  saveArrays,
  saveIndex,
  saveShards,
  shardedGolden,
  weightFileBytes,
} from "../support/foreign.ts";
import { arraysOf, filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
let serial = 0;
const place = () => join(work, String(serial++));

/** Every tensor of a source by its name, and the digest of its bytes. */
async function weightsOf(source: string) {
  return await digestsOf(await openCheckpoint(source));
}

const goldens = new Map<string, ReadonlyMap<string, string>>();
beforeAll(async () => {
  for (const name of ["tiny", "latent-moe"]) goldens.set(name, await weightsOf(golden(name)));
});

async function rulesOf(source: string): Promise<string[]> {
  const { findings } = await check(source);
  return findings
    .filter(({ rule }) => !rule.startsWith("remote-code"))
    .map(({ rule, severity }) => `${severity} ${rule}`);
}

/** Converts, and collects what is said on the way. */
async function converted(source: string, to: string, options: ConvertOptions = {}) {
  const warnings: string[] = [];
  const out = `${place()}${to === "packed" ? ".isologit" : ""}`;
  const report = await convert(source, out, {
    verify: "off",
    threads: 1,
    watch: (event) => void (event.type === "warning" && warnings.push(event.message)),
    ...options,
    to,
  });
  return { out, report, warnings: warnings.join("\n") };
}

const tiny = () => shardedGolden("tiny", place());

interface Case {
  readonly build: () => Promise<string>;
  /** findings of `check` */
  readonly rules: readonly string[];
  /** what `convert` says of it; absent: nothing */
  readonly says?: RegExp;
  /** the golden whose weights they are; default tiny */
  readonly of?: string;
}

async function built(sharded: Promise<Sharded>, change: (sharded: Sharded) => void | Promise<void>) {
  const made = await sharded;
  await change(made);
  return made.folder;
}

const READ: Readonly<Record<string, Case>> = {
  "an index whose total_size is that of the files": {
    build: () =>
      built(tiny(), ({ folder, weightMap }) =>
        saveIndex(folder, weightMap, { total_size: weightFileBytes(folder) }),
      ),
    rules: ["warning index-total"],
    says: /total_size is \d+ bytes, but the tensors have \d+/,
  },
  "an index with a fraction for a size": {
    build: () =>
      built(tiny(), ({ folder }) => {
        const path = join(folder, INDEX);
        writeFileSync(path, readFileSync(path, "utf8").replace(/("total_size": \d+)/, "$1.0"));
      }),
    rules: [],
  },
  "an index without metadata": {
    build: () =>
      built(tiny(), ({ folder, weightMap }) =>
        writeFileSync(join(folder, INDEX), JSON.stringify({ weight_map: weightMap })),
      ),
    rules: [],
  },
  "an index of absolute paths into this folder": {
    build: () =>
      built(tiny(), ({ folder, weightMap }) =>
        saveIndex(folder, Object.fromEntries(entriesOf(weightMap, (file) => join(folder, file)))),
      ),
    rules: ["warning index-path"],
    says: /weight_map names .*model-00001-of-00003\.safetensors", but all loaders find only plain file names/,
  },
  "the same through a link": {
    build: () =>
      built(tiny(), ({ folder, weightMap }) => {
        saveIndex(folder, Object.fromEntries(entriesOf(weightMap, (file) => join(folder, file))));
        symlinkSync(folder, `${folder}-link`);
      }).then((folder) => `${folder}-link`),
    rules: ["warning index-path"],
    says: /weight_map names/,
  },
  "an index of paths that begin with ./": {
    build: () =>
      built(tiny(), ({ folder, weightMap }) =>
        saveIndex(folder, Object.fromEntries(entriesOf(weightMap, (file) => `./${file}`))),
      ),
    rules: ["warning index-path"],
    says: /weight_map names "\.\/model/,
  },
  "shards without an index": {
    build: () => built(tiny(), ({ folder }) => rmSync(join(folder, INDEX))),
    rules: ["error index-missing"],
    says: /3 weight files and no model\.safetensors\.index\.json/,
  },
  "weight files without numbers and without an index": {
    build: () =>
      built(tiny(), ({ folder }) => {
        rmSync(join(folder, INDEX));
        for (const n of [1, 2, 3])
          renameSync(
            join(folder, `model-0000${n}-of-00003.safetensors`),
            join(folder, `part-${n}.safetensors`),
          );
      }),
    rules: ["error index-missing"],
    says: /3 weight files and no/,
  },
  "one weight file of another name, with macOS's notes beside all": {
    build: async () => {
      const folder = copyGolden("tiny", place());
      renameSync(join(folder, "model.safetensors"), join(folder, "weights.safetensors"));
      for (const file of readdirSync(folder)) writeFileSync(join(folder, `._${file}`), new Uint8Array(4096));
      return folder;
    },
    rules: ["warning weights-name", "note surplus"],
    says: /7 files of 28\.0 KiB beside the model \(notes that macOS keeps/,
  },
  "prediction layers in a file that the index leaves out": {
    build: () => omitting("model-mtp-of-00002.safetensors"),
    rules: ["error index-omits"],
    says: /model-mtp-of-00002\.safetensors: no index names it, and it holds mtp\..* and 39 more, which the config asks for/,
    of: "latent-moe",
  },
  "the same in a folder below": {
    build: () => omitting("mtp/model.safetensors"),
    rules: ["error index-omits"],
    says: /mtp\/model\.safetensors: no index names it/,
    of: "latent-moe",
  },
  "a tensor in a file of the index that the index leaves out": {
    build: () =>
      built(tiny(), ({ folder, weightMap }) => {
        const { "lm_head.weight": _, ...rest } = weightMap;
        saveIndex(folder, rest);
      }),
    rules: ["warning index-omits"],
    says: /lm_head\.weight in model-0000\d-of-00003\.safetensors but not in the index/,
  },
  "a single file beside another set of shards": {
    build: () => twoModels(),
    rules: ["error two-sets", "note surplus"],
    says: /the single file is read, as by Transformers, where vLLM and SGLang read the others/,
  },
  "shards of an older split": {
    build: () => built(tiny(), ({ folder, arrays }) => void saveShards(folder, arrays, 2)),
    rules: ["warning two-sets", "note surplus"],
    says: /model-00001-of-00002\.safetensors: it and 1 more hold weights that are read from other files/,
  },
  "an index of shards that are gone, beside a single file": {
    build: () =>
      built(tiny(), async ({ folder, arrays }) => {
        for (const n of [1, 2, 3]) rmSync(join(folder, `model-0000${n}-of-00003.safetensors`));
        saveArrays(join(folder, "model.safetensors"), arrays);
      }),
    rules: ["error index-stale", "note surplus"],
    says: /it names files that are not here: model\.safetensors is read/,
  },
  "an adapter beside the model": {
    build: async () => {
      const folder = copyGolden("tiny", place());
      writeFileSync(join(folder, "adapter_config.json"), "{}");
      saveArrays(join(folder, "adapter_model.safetensors"), new Map());
      return folder;
    },
    rules: ["warning adapter-beside"],
    says: /an adapter lies beside the model/,
  },
};

function entriesOf(map: Readonly<Record<string, string>>, spell: (file: string) => string) {
  return Object.entries(map).map(([name, file]) => [name, spell(file)] as const);
}

/** latent-moe in two shards with their index, its prediction layers in a file of their own. */
async function omitting(file: string): Promise<string> {
  const folder = copyGolden("latent-moe", place());
  const arrays = await arraysOf(join(folder, "model.safetensors"));
  rmSync(join(folder, "model.safetensors"));
  const part = (mtp: boolean) => new Map([...arrays].filter(([name]) => name.startsWith("mtp.") === mtp));
  saveIndex(folder, saveShards(folder, part(false), 2));
  mkdirSync(join(folder, "mtp"));
  saveArrays(join(folder, file), part(true));
  return folder;
}

/** tiny as the single file, and in shards with an index after another training step. */
async function twoModels(): Promise<string> {
  const { folder, arrays } = await tiny();
  saveArrays(join(folder, "model.safetensors"), arrays);
  const other = new Map(
    [...arrays].map(([name, array]) => [name, { ...array, bytes: array.bytes.map((byte) => byte ^ 1) }]),
  );
  saveShards(folder, other, 3);
  return folder;
}

describe("read as loaders read it, and told", () => {
  it.each(Object.entries(READ))("%s", async (_, { build, rules, says, of = "tiny" }) => {
    const source = await build();
    expect(await rulesOf(source)).toEqual(rules);
    expect(await weightsOf(source)).toEqual(goldens.get(of));
    const { warnings } = await plan(source, place(), { to: "hf" });
    if (says === undefined) expect(warnings).toEqual([]);
    else expect(warnings.join("\n")).toMatch(says);
  });
});

describe("refused, with a next step that was tried", () => {
  it("a single file that lacks what the index and its shards hold", async () => {
    const { folder, arrays } = await tiny();
    const single = join(folder, "model.safetensors");
    saveArrays(single, new Map([...arrays].slice(0, 1)));
    await expect(converted(folder, "packed")).rejects.toMatchObject({
      code: "INDEX_MISMATCH",
      message: expect.stringMatching(/model\.safetensors holds 1 tensor, and 3 files that .* names hold 58/),
      next: `remove model.safetensors, or else ${INDEX} and the files that it names`,
    });
    rmSync(single);
    expect(await weightsOf(folder)).toEqual(goldens.get("tiny"));
  });

  it("an index of other files than those that are here", async () => {
    const { folder, weightMap } = await tiny();
    saveIndex(
      folder,
      Object.fromEntries(entriesOf(weightMap, (file) => file.replace("-of-00003", "-of-00030"))),
    );
    await expect(converted(folder, "packed")).rejects.toMatchObject({
      code: "INDEX_MISMATCH",
      exit: 3,
      message: expect.stringMatching(
        /3 weight files that are not there; 3 other weight files here hold all 58/,
      ),
      next: expect.stringMatching(`remove ${INDEX}`),
    });
    rmSync(join(folder, INDEX));
    expect(await weightsOf(folder)).toEqual(goldens.get("tiny"));
  });

  it("absolute paths into another folder", async () => {
    const { folder, weightMap } = await tiny();
    saveIndex(folder, Object.fromEntries(entriesOf(weightMap, (file) => `/data/model/${file}`)));
    await expect(converted(folder, "packed")).rejects.toMatchObject({
      code: "PATH_UNSAFE",
      message: expect.stringMatching(/an absolute path that is not in this folder/),
      next: expect.stringMatching(/file names without a folder/),
    });
  });

  it("one of several numbered files missing, and no index", async () => {
    const { folder } = await tiny();
    for (const file of [INDEX, "model-00002-of-00003.safetensors"]) rmSync(join(folder, file));
    await expect(converted(folder, "packed")).rejects.toMatchObject({
      code: "INDEX_MISMATCH",
      message: expect.stringMatching(/2 of 3 weight files are here, .* number 2 is missing/),
    });
  });

  it("two whole sets and no index", async () => {
    const { folder, arrays } = await tiny();
    saveShards(folder, arrays, 2);
    rmSync(join(folder, INDEX));
    await expect(converted(folder, "packed")).rejects.toMatchObject({ code: "FORMAT_AMBIGUOUS" });
  });

  it("a file that no index names, of which one part is read from elsewhere", async () => {
    const folder = await omitting("extra.safetensors");
    const [shard] = readdirSync(folder).filter((file) => file.endsWith("00001-of-00002.safetensors"));
    const both = new Map([
      ...(await arraysOf(join(folder, "extra.safetensors"))),
      ...(await arraysOf(join(folder, shard!))),
    ]);
    saveArrays(join(folder, "extra.safetensors"), both);
    await expect(converted(folder, "nemo2")).rejects.toMatchObject({
      code: "INDEX_MISMATCH",
      at: { file: "extra.safetensors", tensor: expect.stringMatching(/^mtp\./) },
    });
  });

  it("two files that no index names with the same tensors", async () => {
    const folder = await omitting("one.safetensors");
    saveArrays(join(folder, "two.safetensors"), await arraysOf(join(folder, "one.safetensors")));
    await expect(converted(folder, "packed")).rejects.toMatchObject({ code: "DUPLICATE_NAME" });
  });
});

describe("what a rewritten folder holds", () => {
  it("prediction layers that the index left out are in the new index, and in NeMo's format", async () => {
    const source = await omitting("model-mtp-of-00002.safetensors");
    const { out } = await converted(source, "hf");
    expect(await rulesOf(out)).toEqual([]);
    const index = JSON.parse(readFileSync(join(out, INDEX), "utf8"));
    expect(Object.keys(index.weight_map)).toHaveLength(199);
    const nemo = await converted(source, "nemo2");
    const home = await converted(nemo.out, "hf");
    expect(await weightsOf(home.out)).toEqual(goldens.get("latent-moe"));
  });

  it("an index with absolute paths is written anew", async () => {
    const { folder, weightMap } = await tiny();
    saveIndex(folder, Object.fromEntries(entriesOf(weightMap, (file) => join(folder, file))));
    const { out } = await converted(folder, "hf");
    expect(await rulesOf(out)).toEqual([]);
  });

  it("another set of weights never travels, into no format", async () => {
    const source = await twoModels();
    const { out, report } = await converted(source, "hf", { maxShardBytes: 200_000, keepExtra: true });
    expect(report.dropped).toEqual([
      { why: "another set of the weights", entries: 4, bytes: expect.any(Number) },
    ]);
    expect(await rulesOf(out)).toEqual([]);
    expect(await weightsOf(out)).toEqual(goldens.get("tiny"));
    const packed = await converted(source, "packed", { keepExtra: true });
    const home = await converted(packed.out, "hf");
    expect([...filesOf(home.out).keys()].filter((file) => file.endsWith("safetensors"))).toEqual([
      "model.safetensors",
    ]);
  });
});

/** As the Trainer with DeepSpeed leaves a checkpoint. */
async function trained(): Promise<string> {
  const folder = copyGolden("tiny", place());
  const files = {
    "optimizer.pt": 30_000,
    "scheduler.pt": 600,
    "rng_state_0.pth": 700,
    "training_args.bin": 800,
    "trainer_state.json": 40,
    latest: 14,
    "global_step500/mp_rank_00_model_states.pt": 9000,
    "global_step500/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": 9000,
    "pytorch_model.bin": 5000,
    "pytorch_model.bin.index.json": 50,
    "model-q4.gguf": 400,
    "optimizer_0/.metadata": 10,
    "optimizer_0/__0_0.distcp": 100,
    "zero_to_fp32.py": 12,
    "notes.txt": 5,
  };
  for (const below of ["global_step500", "optimizer_0"]) mkdirSync(join(folder, below));
  for (const [path, size] of Object.entries(files)) writeFileSync(join(folder, path), "x".repeat(size));
  return folder;
}

describe("training state and surplus files", () => {
  it("are named with their size and left out", async () => {
    const source = await trained();
    expect(await rulesOf(source)).toEqual(["note surplus"]);
    const { out, report, warnings } = await converted(source, "hf");
    expect(warnings).toMatch(
      /13 files of 54\.4 KiB beside the model \(training state: optimizer\.pt 29\.3 KiB, global_step500\/ 17\.6 KiB/,
    );
    expect(warnings).toMatch(/`keepExtra` copies them too/);
    expect(report.dropped).toEqual([
      { why: "training state", entries: 10, bytes: 50_264 },
      { why: "weights that nothing names", entries: 3, bytes: 5450 },
    ]);
    const extra = [...filesOf(out).keys()].filter((path) => !filesOf(golden("tiny")).has(path));
    expect(extra).toEqual(["notes.txt", "zero_to_fp32.py"]);
    const packed = await converted(source, "packed");
    const home = await converted(packed.out, "hf");
    expect(filesOf(home.out)).toEqual(filesOf(out));
  });

  it("travel with --keep-extra, and come home from every format", async () => {
    const source = await trained();
    for (const to of ["packed", "nemo2"]) {
      const { out, report, warnings } = await converted(source, to, { keepExtra: true });
      expect(report.dropped.filter(({ bytes }) => bytes !== undefined)).toEqual([]);
      expect(warnings).toMatch(/: copied too/);
      const home = await converted(out, "hf", { keepExtra: true });
      expect(filesOf(home.out)).toEqual(filesOf(source));
    }
  });

  it("are told by the plan as well", async () => {
    const source = await trained();
    const { dropped, files } = await plan(source, place(), { to: "hf" });
    expect(dropped.map(({ why }) => why)).toEqual(["training state", "weights that nothing names"]);
    expect(files.some(({ path }) => path === "optimizer.pt")).toBe(false);
    const kept = await plan(source, place(), { to: "hf", keepExtra: true });
    expect(kept.files.some(({ path }) => path === "optimizer.pt")).toBe(true);
  });
});

it("NeMo's marker beside a checkpoint is a warning", async () => {
  const source = place();
  copyGolden("nemo2-tiny", source);
  writeFileSync(`${source}-unfinished`, "");
  expect(await rulesOf(source)).toContain("warning unfinished");
  expect((await converted(source, "hf")).warnings).toMatch(/not written to its end/);
});
