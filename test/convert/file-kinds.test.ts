/** Kinds of GGUF files: conversions give the tensors of llama-quantize, by any number of threads, in one step from every source. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import type { FileKind } from "../../src/core/dtype.ts";
import { sha256 } from "../../src/core/hash.ts";
import { fileStore } from "../../src/io/file.ts";
import { bytesIn } from "../support/content.ts";
import { errorOf } from "../support/errors.ts";
import { filesOf, fp8Dialects, ggufGolden, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const quantized: Record<string, Record<string, { type: string; sha256: string }>> = JSON.parse(
  readFileSync(ggufGolden("quantized.json"), "utf8"),
);

async function tensorsOf(path: string) {
  const { tensors, store, metadata } = await gguf.read(await fileStore(path));
  const found: Record<string, { type: string; sha256: string }> = {};
  for (const tensor of tensors)
    found[tensor.name] = { type: tensor.dtype, sha256: sha256(await bytesIn(store, tensor)) };
  return { found, number: metadata!.find(({ key }) => key === "general.file_type")?.value };
}

const NUMBERS: Readonly<Record<string, number>> = { q4_0: 2, q8_0: 7, q4_k_m: 15, q5_k_m: 17, q6_k: 18 };

describe("the tensors of llama-quantize", () => {
  it.each(Object.entries(quantized))("%s", async (name, expected) => {
    const dtype = name.slice(name.indexOf("-") + 1) as FileKind;
    const [source, out] = [
      name.startsWith("k-") ? ggufGolden("k-bf16.gguf") : golden("tiny"),
      join(work, `${name}.gguf`),
    ];
    await convert(source, out, { dtype, verify: "off" });
    const { found, number } = await tensorsOf(out);
    // The converter's exponential is not rounded correctly: ssm_a may differ in the last place.
    const compared = Object.entries(expected).filter(([tensor]) => !tensor.endsWith("ssm_a"));
    expect(found).toMatchObject(Object.fromEntries(compared));
    expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
    expect(number).toBe(NUMBERS[dtype]);
  });
});

it("any number of threads and any memory give the same bytes", async () => {
  const options = [
    { threads: 1, memoryBytes: 2 ** 20 + 2 ** 18 },
    { threads: 2, memoryBytes: 2 ** 26 },
  ];
  const files: Buffer[] = [];
  for (const [i, option] of options.entries()) {
    const out = join(work, `memory-${i}.gguf`);
    await convert(ggufGolden("k-bf16.gguf"), out, { dtype: "q4_k_m", verify: "off", ...option });
    files.push(readFileSync(out));
  }
  expect(files[0]!.equals(files[1]!)).toBe(true);
});

describe("one step from codes equals a step through F32", () => {
  it.each(["ct-tensor-static", "ct-block-128", "ct-nvfp4", "modelopt-mxfp8"])("%s", async (name) => {
    const [wide, twice, once] = [join(work, `${name}-f32`), `${name}-2.gguf`, `${name}-1.gguf`];
    await convert(fp8Dialects(name), wide, { to: "hf", dtype: "f32", verify: "off" });
    await convert(wide, join(work, twice), { dtype: "q5_1", verify: "off" });
    await convert(fp8Dialects(name), join(work, once), { dtype: "q5_1", verify: "off" });
    const { found } = await tensorsOf(join(work, once));
    expect(found).toEqual((await tensorsOf(join(work, twice))).found);
    const blocks = Object.values(found).filter(({ type }) => type === "Q5_1");
    expect(blocks.length).toBeGreaterThan(10);
  });
});

it("one step from blocks of other types equals a step through F32", async () => {
  const [wide, twice, once] = ["wide", "twice", "once"].map((name) => join(work, `${name}.gguf`));
  await convert(ggufGolden("k-q4_k_m.gguf"), wide!, { dtype: "f32", verify: "off" });
  await convert(wide!, twice!, { dtype: "q8_0", verify: "off" });
  await convert(ggufGolden("k-q4_k_m.gguf"), once!, { dtype: "q8_0", verify: "off" });
  expect((await tensorsOf(once!)).found).toEqual((await tensorsOf(twice!)).found);
});

describe("a plan", () => {
  it("tells types, bits, and what falls back", async () => {
    const { fileKind, warnings, tensors } = await plan(golden("tiny"), join(work, "plan.gguf"), {
      dtype: "q4_k_m",
    });
    expect(fileKind).toMatchObject({
      id: "q4_k_m",
      types: [
        { dtype: "Q5_0", tensors: 21, weights: 202752 },
        { dtype: "F32", tensors: 34, weights: 5088 },
        { dtype: "Q8_0", tensors: 3, weights: 40960 },
      ],
      fallbacks: [
        { from: "Q4_K", to: "Q5_0", tensors: 21, block: 256, rows: [64, 128, 96] },
        { from: "Q6_K", to: "Q8_0", tensors: 2, block: 256, rows: [96, 64] },
      ],
    });
    const [q5, q8, f32] = [202752, 40960, 5088];
    expect(fileKind!.bitsPerWeight).toBe((5.5 * q5 + 8.5 * q8 + 32 * f32) / (q5 + q8 + f32));
    expect(tensors.find(({ name }) => name === "token_embd.weight")!.why).toBe(
      "q4_k_m, but rows of 64 are no whole blocks of Q4_K",
    );
    expect(warnings).toContain("Q4_K -> Q5_0 for 21 tensors: rows of 64, 128, 96 are no multiple of 256");
  });

  it("of rows of whole blocks tells no fallback, and other plans no kind", async () => {
    const source = ggufGolden("k-bf16.gguf");
    const { fileKind } = await plan(source, join(work, "k.gguf"), { dtype: "q6_k" });
    expect(fileKind!.fallbacks).toEqual([]);
    expect(await plan(source, join(work, "k.gguf"), { dtype: "f16" })).not.toHaveProperty("fileKind");
  });
});

describe("what is refused", () => {
  const refused = async (source: string, out: string, options: object) =>
    await errorOf(async () => await plan(source, join(work, out), options));

  it("a destination without kinds of files", async () => {
    const error = await refused(golden("tiny"), "hf", { to: "hf", dtype: "q4_k_m" });
    expect(error).toMatchObject({ code: "USAGE", next: expect.stringContaining("`to` gguf") });
  });

  it("a recipe, because the kind chooses", async () => {
    for (const option of [{ recipe: "all-linear" }, { keepEnds: 1 }])
      expect(await refused(golden("tiny"), "r.gguf", { dtype: "q8_0", ...option })).toMatchObject({
        code: "USAGE",
      });
  });

  it("a weight that is no number, with its tensor and index", async () => {
    const path = join(work, "nan.gguf");
    const { tensors } = await gguf.read(await fileStore(ggufGolden("k-bf16.gguf")));
    const { name, pieces } = tensors.find(({ name }) => name.endsWith("ssm_in.weight"))!;
    const bytes = readFileSync(ggufGolden("k-bf16.gguf"));
    bytes.writeUInt16LE(0x7fc0, pieces[0]!.offset + 2 * 12345);
    writeFileSync(path, bytes);
    for (const dtype of ["q4_k_m", "q8_0"] as const) {
      const error = await errorOf(
        async () => await convert(path, join(work, `nan-${dtype}.gguf`), { dtype, verify: "off" }),
      );
      expect(error).toMatchObject({ code: "NON_FINITE", at: { tensor: name, index: 12345 } });
    }
  });
});

it("a conversion that was stopped goes on, in one file and in parts, and gives the bytes of one that was not", async () => {
  const source = ggufGolden("k-bf16.gguf");
  for (const [name, size] of [
    ["stopped.gguf", {}],
    ["stopped", { to: "gguf", maxShardBytes: 150_000 }],
  ] as const) {
    const [whole, out] = [join(work, `whole-${name}`), join(work, name)];
    const options = { dtype: "q4_k_m", verify: "off", threads: 1, checkpointBytes: 1, ...size } as const;
    await convert(source, whole, options);
    const stop = new AbortController();
    let tensors = 0;
    const watch = (event: { readonly type: string }) => {
      if (event.type === "tensor" && ++tensors === 8) stop.abort();
    };
    const { code } = await errorOf(() => convert(source, out, { ...options, watch, signal: stop.signal }));
    expect(code).toBe("INTERRUPTED");
    const journal = readFileSync(join(`${out}.partial`, "journal.ndjson"), "utf8");
    expect(journal.split("\n").length).toBeGreaterThan(4);
    const { bytesWritten } = await convert(source, out, { ...options, resume: true });
    expect(bytesWritten).toBeGreaterThan(0);
    expect(contentOf(out)).toEqual(contentOf(whole));
  }
});

/** The files of a folder, or the one file. */
const contentOf = (path: string) =>
  statSync(path).isDirectory() ? [...filesOf(path).entries()] : readFileSync(path).toString("base64");

it("plan with `measure` tells the errors that a verification of the written file finds", async () => {
  const source = ggufGolden("k-bf16.gguf");
  const options = { dtype: "q4_k_m", threads: 1 } as const;
  const { measurement } = await plan(source, join(work, "measured.gguf"), { ...options, measure: true });
  const { verification } = await convert(source, join(work, "measured.gguf"), {
    ...options,
    verify: "bytes",
  });
  const written = verification!.tensors!.filter(({ error }) => error !== undefined && error.relL2 > 0);
  expect(measurement).toMatchObject({ differences: [], findings: [] });
  const measured = measurement!.tensors.filter(({ error }) => error!.relL2 > 0);
  expect(measured.length).toBeGreaterThan(8);
  expect(measured.map(({ b, error }) => [b, error!.relL2])).toEqual(
    written.map(({ b, error }) => [b, error!.relL2]),
  );
  expect(measurement!.error!.relL2).toBeGreaterThan(0.03);
});
