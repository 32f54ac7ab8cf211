import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readHeader } from "../../formats/codec/safetensors.ts";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { fileStore } from "../../src/io/file.ts";
import { fp8Dialects, golden, workFolder } from "../support/goldens.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

type Expected = Record<string, Record<string, { bf16: string }>>;
const expected: Expected = JSON.parse(readFileSync(fp8Dialects("expected.json"), "utf8"));
const work = workFolder();
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

describe.each(Object.keys(expected))("%s", (folder) => {
  it("is decoded to BF16 as the library that wrote it decodes it", async () => {
    const out = join(work, `${folder}-bf16`);
    await convert(fp8Dialects(folder), out, { dtype: "bf16", verify: "off" });
    const bytes = readFileSync(join(out, "model.safetensors"));
    await using source = await (await fileStore(out)).open("model.safetensors");
    const { tensors } = await readHeader(source, "model.safetensors");
    for (const [module, { bf16 }] of Object.entries(expected[folder]!)) {
      const { dtype, begin, end } = tensors.find(({ name }) => name === `${module}.weight`)!;
      expect(dtype).toBe("BF16");
      expect(sha256(bytes.subarray(begin, end)), module).toBe(bf16);
    }
    expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).not.toHaveProperty(
      "quantization_config",
    );
    expect(readdirSync(out)).not.toContain("hf_quant_config.json");
  });

  it("comes home from a packed file byte for byte", async () => {
    const [packed, home] = [join(work, `${folder}.isologit`), join(work, folder)];
    await convert(fp8Dialects(folder), packed, { verify: "off" });
    await convert(packed, home, { to: "hf", verify: "off" });
    for (const file of readdirSync(fp8Dialects(folder))) {
      expect(readFileSync(join(home, file)).equals(readFileSync(join(fp8Dialects(folder), file))), file).toBe(
        true,
      );
    }
  });
});

it("a NaN code is refused by tensor and index", async () => {
  const editor = new Editor(await copyOf(fp8Dialects("ct-tensor-dynamic")));
  editor.bytes("backbone.layers.1.mixer.up_proj.weight", (bytes) => bytes.fill(0x7f, 777, 778));
  const source = written(editor.copy, join(work, "nan-code"));
  await expect(
    convert(source, join(work, "nan-out"), { dtype: "bf16", verify: "off" }),
  ).rejects.toMatchObject({
    code: "NON_FINITE",
    at: { tensor: "backbone.layers.1.mixer.up_proj.weight", index: 777 },
  });
  const blocks = new Editor(await copyOf(fp8Dialects("ct-block-128")));
  blocks.bytes("backbone.layers.0.mixer.in_proj.weight", (bytes) => bytes.fill(0xff, 5000, 5001));
  const other = written(blocks.copy, join(work, "nan-block"));
  await expect(convert(other, join(work, "nan-out"), { dtype: "f32", verify: "off" })).rejects.toMatchObject({
    code: "NON_FINITE",
    at: { tensor: "backbone.layers.0.mixer.in_proj.weight", index: 5000 },
  });
});

it("inspect says what is declared and what is stored", async () => {
  const { quantization, parameters } = await inspect(fp8Dialects("modelopt-mixed"));
  expect(parameters).toBe((await inspect(golden("tiny"))).parameters);
  expect(quantization).toMatchObject({
    method: "modelopt",
    declares: ["FP8, one scale per tensor, static activations", "NVFP4, static activations", "FP8 KV cache"],
    stores: ["8 F8_E4M3, one scale per tensor", "6 F4, one scale per block of 1 x 16 and one per tensor"],
  });
});

it("a plan names the stored tensors and their dtypes", async () => {
  const { tensors } = await plan(fp8Dialects("ct-nvfp4"), join(work, "planned"), { dtype: "bf16" });
  const name = "backbone.layers.0.mixer.in_proj.weight";
  expect(tensors.find((tensor) => tensor.name === name)).toMatchObject({
    from: name,
    dtype: "BF16",
    sourceDtype: "F4",
  });
});
