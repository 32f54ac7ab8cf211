import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { codeOf } from "../support/errors.ts";
import { arraysOf, filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
let counter = 0;
const fresh = (ending = "") => join(work, `${counter++}${ending}`);

describe("Hugging Face to packed and back gives the same bytes, file for file", () => {
  it.each([
    ["tiny", "logits"],
    ["tiny-t5", "logits"],
    ["sharded", "logits"],
    ["moe", "bytes"],
    ["latent-moe", "bytes"],
  ] as const)("%s, verified by %s", async (name, verify) => {
    const [packed, back] = [fresh(".isologit"), fresh()];
    const there = await convert(golden(name), packed, { verify });
    expect(there.verification?.verdict).toBe("same");
    expect(there.exact).toBe(true);
    expect(there.source.root).toMatch(/^[0-9a-f]{64}$/);
    expect(there.destination.root).toBe(there.source.root);
    const home = await convert(packed, back, { to: "hf", verify });
    expect(home.verification?.verdict).toBe("same");
    expect(home.destination.root).toBe(there.source.root);
    expect(filesOf(back)).toEqual(filesOf(golden(name)));
  });
});

it("both config styles have one content root", async () => {
  const roots = [];
  for (const name of ["tiny", "tiny-t5"]) {
    roots.push((await convert(golden(name), fresh(".isologit"), { verify: "bytes" })).source.root);
  }
  expect(roots[0]).toBe(roots[1]);
});

describe("the same input gives the same bytes", () => {
  it.each(["keep", "fp8-e4m3"] as const)("for any memory and threads: %s", async (dtype) => {
    const files: Buffer[] = [];
    for (const options of [{}, { threads: 1 }, { threads: 3, memoryBytes: 8 * 1024 * 1024 }]) {
      const packed = fresh(".isologit");
      await convert(golden("sharded"), packed, {
        dtype,
        keepEnds: dtype === "keep" ? undefined! : 0,
        verify: "off",
        ...options,
      });
      files.push(readFileSync(packed));
    }
    expect(files[1]!.equals(files[0]!)).toBe(true);
    expect(files[2]!.equals(files[0]!)).toBe(true);
  });
});

describe("a recast says what it did", () => {
  it("FP8 straight to a folder is FP8 packed and unpacked", async () => {
    const [direct, packed, unpacked] = [fresh(), fresh(".isologit"), fresh()];
    const report = await convert(golden("sharded"), direct, { to: "hf", dtype: "fp8-e4m3", keepEnds: 1 });
    expect(report.verification?.verdict).toBe("within");
    expect(report.exact).toBe(false);
    expect(report.destination.root).not.toBe(report.source.root);
    await convert(golden("sharded"), packed, { dtype: "fp8-e4m3", keepEnds: 1, verify: "off" });
    await convert(packed, unpacked, { to: "hf", verify: "off" });
    expect(filesOf(unpacked)).toEqual(filesOf(direct));
  });

  it("FP8 weights carry scales, and the config says so", async () => {
    const folder = fresh();
    await convert(golden("tiny"), folder, { to: "hf", dtype: "fp8-e4m3", keepEnds: 2, verify: "off" });
    const arrays = await arraysOf(join(folder, "model.safetensors"));
    const cast = [...arrays].filter(([, { dtype }]) => dtype === "F8_E4M3").map(([name]) => name);
    expect(cast).toEqual(cast.filter((name) => arrays.get(`${name}_scale`)?.dtype === "F32"));
    // M-M*-M*-M with two layers kept at each end: layers 2, 4 and 5 have projections of Mamba or MLP blocks
    expect(new Set(cast.map((name) => name.split(".")[2]))).toEqual(new Set(["2", "4", "5"]));
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    expect(config.quantization_config).toMatchObject({
      quant_method: "compressed-tensors",
      format: "float-quantized",
    });
    // What is kept is listed as stored and as Transformers 5 holds it: one spelling alone has the other's reader
    // quantise it with scales that are not there.
    const { ignore } = config.quantization_config;
    expect(ignore).toContain("backbone.layers.3.mixer.q_proj");
    expect(ignore).toContain("model.layers.3.mixer.q_proj");
    expect(ignore.filter((name: string) => /^\w+\.layers\.[245]\./.test(name))).toEqual([]);
  });

  it("FP8 back to BF16 is plain again, and BF16 of that to FP8 gives the same codes", async () => {
    const [fp8, bf16, again] = [fresh(), fresh(), fresh()];
    await convert(golden("tiny"), fp8, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
    const back = await convert(fp8, bf16, { to: "hf", dtype: "bf16" });
    expect(back.verification?.verdict).toBe("within");
    expect(readFileSync(join(bf16, "config.json"), "utf8")).not.toContain("quantization_config");
    await convert(bf16, again, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
    expect(filesOf(again)).toEqual(filesOf(fp8));
  });

  it("a widening is exact in its values", async () => {
    const report = await convert(golden("tiny"), fresh(), { to: "hf", dtype: "f32" });
    const logits = report.verification?.rungs.find(({ rung }) => rung === "logits");
    expect(logits?.metrics).toMatchObject({ maxAbs: 0, wiring: { maxRelL2: 0 } });
  });
});

describe("names and shards", () => {
  const names = async (folder: string) => [...(await arraysOf(join(folder, "model.safetensors"))).keys()];

  it("--max-shard-size cuts anew, with an index that Transformers reads", async () => {
    const folder = fresh();
    await convert(golden("sharded"), folder, { to: "hf", maxShardBytes: 500_000 });
    const index = JSON.parse(readFileSync(join(folder, "model.safetensors.index.json"), "utf8"));
    const shards = [...new Set(Object.values(index.weight_map))];
    expect(shards.length).toBeGreaterThan(3);
    for (const shard of shards) expect(shard).toMatch(/^model-\d{5}-of-\d{5}\.safetensors$/);
    let total = 0;
    for (const shard of shards) {
      for (const { bytes } of (await arraysOf(join(folder, String(shard)))).values())
        total += bytes.byteLength;
    }
    expect(index.metadata.total_size).toBe(total);
  });

  it("a singular embedding is read, kept in a packed file, and published as plural", async () => {
    const [singular, packed, unpacked, published] = [fresh(), fresh(".isologit"), fresh(), fresh()];
    cpSync(golden("tiny"), singular, { recursive: true });
    const file = join(singular, "model.safetensors");
    // one character shorter: the header's padding takes it up
    const bytes = readFileSync(file);
    const size = Number(bytes.readBigUInt64LE());
    const header = bytes
      .toString("latin1", 8, 8 + size)
      .replace("backbone.embeddings.weight", "backbone.embedding.weight");
    bytes.write(header.padEnd(size), 8, "latin1");
    writeFileSync(file, bytes);
    await convert(singular, packed, { verify: "off" });
    await convert(packed, unpacked, { to: "hf", verify: "off" });
    expect(filesOf(unpacked)).toEqual(filesOf(singular));
    await convert(singular, published, { to: "hf" });
    expect(await names(published)).toContain("backbone.embeddings.weight");
  });
});

describe("a destination appears whole or not at all", () => {
  it("an existing one is refused, replaced on request", async () => {
    const packed = fresh(".isologit");
    await convert(golden("tiny"), packed, { verify: "off" });
    const before = readFileSync(packed);
    expect(await codeOf(() => convert(golden("tiny"), packed, { verify: "off" }))).toBe("DESTINATION_EXISTS");
    await convert(golden("tiny-t5"), packed, { verify: "off", overwrite: true });
    expect(readFileSync(packed).equals(before)).toBe(false);
    expect(existsSync(`${packed}.partial`)).toBe(false);
  });

  it("a resume of a finished conversion only looks", async () => {
    const packed = fresh(".isologit");
    await convert(golden("tiny"), packed, {});
    const again = await convert(golden("tiny"), packed, { resume: true });
    expect(again.bytesWritten).toBe(0);
    expect(again.verification?.verdict).toBe("same");
    expect(existsSync(`${packed}.partial`)).toBe(false);
  });

  it("bad weights leave nothing behind, and are named", async () => {
    const folder = fresh();
    cpSync(golden("tiny"), folder, { recursive: true });
    const file = join(folder, "model.safetensors");
    const bytes = readFileSync(file);
    const size = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + size));
    const name = "backbone.layers.2.mixer.in_proj.weight";
    bytes.writeUInt16LE(0x7fc0, 8 + size + header[name].data_offsets[0] + 2 * 1234);
    writeFileSync(file, bytes);
    const destination = fresh();
    const failed = await convert(folder, destination, { to: "hf", dtype: "fp8-e4m3" }).catch(
      (error) => error,
    );
    expect(failed).toMatchObject({ code: "NON_FINITE", exit: 3, at: { tensor: name, index: 1234 } });
    expect(readdirSync(work).filter((entry) => entry.startsWith(destination.slice(work.length + 1)))).toEqual(
      [],
    );
  });

  it("a value that F16 cannot hold stops the run, unless allowed", async () => {
    const folder = fresh();
    cpSync(golden("tiny"), folder, { recursive: true });
    const file = join(folder, "model.safetensors");
    const bytes = readFileSync(file);
    const size = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + size));
    bytes.writeUInt16LE(0x4780, 8 + size + header["lm_head.weight"].data_offsets[0] + 2 * 7); // 65536
    writeFileSync(file, bytes);
    const options = { to: "hf", dtype: "f16", verify: "off" } as const;
    const failed = await convert(folder, fresh(), options).catch((error) => error);
    expect(failed).toMatchObject({ code: "OVERFLOW", at: { tensor: "lm_head.weight", index: 7 } });
    await convert(folder, fresh(), { ...options, allowOverflow: true });
  });
});

describe("plan", () => {
  it("writes nothing and tells everything", async () => {
    const destination = fresh(".isologit");
    const report = await plan(golden("sharded"), destination, { dtype: "fp8-e4m3", keepEnds: 0 });
    expect(existsSync(destination)).toBe(false);
    expect(report.exact).toBe(false);
    expect(report.tensors.length).toBe(82);
    const converted = await convert(golden("sharded"), destination, {
      dtype: "fp8-e4m3",
      keepEnds: 0,
      verify: "off",
    });
    expect(converted.plan).toBe(report.id);
    expect(readFileSync(destination).byteLength).toBe(report.bytesWritten);
  });

  it("a plan file holds the conversion to it", async () => {
    const [destination, file] = [fresh(".isologit"), fresh(".json")];
    writeFileSync(file, JSON.stringify(await plan(golden("tiny"), destination)));
    const other = () => convert(golden("tiny"), destination, { planFile: file, dtype: "f32", verify: "off" });
    expect(await codeOf(other)).toBe("PLAN_CHANGED");
    await convert(golden("tiny"), destination, { planFile: file, verify: "off" });
  });

  it.each([
    ["NOT_FOUND", () => convert("/nowhere/at/all", fresh(".isologit"))],
    ["NOT_WRITTEN", () => convert(golden("tiny"), fresh(), { to: "nemo1" })],
    ["PLAN_MEMORY", () => convert(golden("tiny"), fresh(".isologit"), { memoryBytes: 1000 })],
    ["USAGE", () => convert(golden("tiny"), fresh(".isologit"), { ids: [512] })],
    ["USAGE", () => convert(golden("tiny"), join(golden("tiny"), "inside.isologit"))],
    [
      "RECIPE_INVALID",
      () => convert(golden("tiny"), fresh(), { to: "hf", dtype: "fp8-e4m3", recipe: "none" }),
    ],
  ] as const)("refuses with %s", async (code, work) => expect(await codeOf(work)).toBe(code));
});
