/** FP8 of AMD's MI300: folders as vLLM normalises them for such hardware, 0x80 as 0 and twice the scale. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { encode, tableOf, widen } from "../../src/core/float.ts";
import { arraysOf, floatsOf, fp8Dialects, golden, workFolder } from "../support/goldens.ts";
import { type Copy, copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const UP = "backbone.layers.1.mixer.up_proj.weight";
const PASS = { tokens: 8, backend: "wasm", threads: 1 } as const;

/** The folder in FNUZ types, and the same with OCP codes without a negative zero. */
async function normalised(folder: string) {
  const [fnuz, ocp] = [new Editor(await copyOf(fp8Dialects(folder))), await copyOf(fp8Dialects(folder))];
  const plain = new Editor(ocp);
  for (const [name, { dtype }] of ocp.tensors) {
    if (dtype !== "F8_E4M3") continue;
    const zero = (bytes: Uint8Array) => bytes.set(bytes.map((code) => (code === 0x80 ? 0 : code)));
    for (const editor of [fnuz, plain]) editor.bytes(name, zero);
    fnuz.put(name, { dtype: "F8_E4M3FNUZ" });
    const scale = ocp.tensors.has(`${name}_scale`) ? `${name}_scale` : `${name}_scale_inv`;
    const twice = floatsOf(fnuz.get(scale)).map((value) => 2 * value);
    fnuz.put(scale, { bytes: new Uint8Array(Float32Array.from(twice).buffer) });
  }
  return { fnuz, plain };
}

const folderOf = (copy: Copy, name: string) => written(copy, join(work, name));
const weightsIn = (folder: string) => readFileSync(join(folder, "model.safetensors"));

describe.each(["ct-tensor-dynamic", "ct-channel-dynamic", "fp8-block-8x32"])("%s in FNUZ types", (name) => {
  it("is relabelled to the folder that it was, and is verified from its own codes", async () => {
    const { fnuz, plain } = await normalised(name);
    const [source, ocp] = [folderOf(fnuz.copy, `${name}-fnuz`), folderOf(plain.copy, `${name}-ocp`)];
    const out = join(work, `${name}-relabelled`);
    const { verification, exact } = await convert(source, out, { fnuz: "relabel", ...PASS });
    expect([verification!.verdict, exact]).toEqual(["within", false]);
    const [found, expected] = [await arraysOf(join(out, "model.safetensors")), plain.copy.tensors];
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [tensor, { dtype, bytes }] of expected)
      expect([found.get(tensor)!.dtype, Buffer.from(found.get(tensor)!.bytes).equals(bytes)]).toEqual([
        dtype,
        true,
      ]);
    expect(readFileSync(join(out, "config.json"))).toEqual(readFileSync(join(source, "config.json")));
    expect((await verify(golden("tiny"), source, PASS)).verdict).toBe("within");
    expect((await verify(source, ocp, { verify: "bytes" })).verdict).toBe("within");
  });

  it("is planned with the types that are stored", async () => {
    const { fnuz } = await normalised(name);
    const source = folderOf(fnuz.copy, `${name}-planned`);
    const { tensors, warnings } = await plan(source, join(work, "none"), { to: "hf", fnuz: "relabel" });
    expect(tensors.find((tensor) => tensor.name === UP)).toMatchObject({
      from: UP,
      sourceDtype: "F8_E4M3FNUZ",
      dtype: "F8_E4M3",
    });
    expect(warnings.join()).toMatch(/no weight changes/);
  });

  it("is decoded to the weights that its twin decodes to", async () => {
    const { fnuz, plain } = await normalised(name);
    const outs = [];
    for (const [kind, { copy }] of Object.entries({ fnuz, plain })) {
      const out = join(work, `${name}-${kind}-bf16`);
      await convert(folderOf(copy, `${name}-${kind}-src`), out, { dtype: "bf16", verify: "off" });
      outs.push(weightsIn(out));
    }
    expect(outs[0]!.equals(outs[1]!)).toBe(true);
  });
});

describe("a folder whose largest codes the OCP type cannot say", async () => {
  const { fnuz } = await normalised("ct-tensor-dynamic");
  const at = 777;
  fnuz.bytes(UP, (bytes) => bytes.fill(0x7f, at, at + 1));
  const source = folderOf(fnuz.copy, "top");

  it("is refused by tensor and index", async () => {
    const out = join(work, "top-out");
    await expect(convert(source, out, { fnuz: "relabel", verify: "off" })).rejects.toMatchObject({
      code: "OVERFLOW",
      at: { tensor: UP, index: at },
      next: expect.stringContaining("bf16"),
    });
  });

  it("is decoded", async () => {
    const out = join(work, "top-bf16");
    await convert(source, out, { dtype: "bf16", verify: "bytes" });
    const { bytes } = (await arraysOf(join(out, "model.safetensors"))).get(UP)!;
    const [scale] = floatsOf(fnuz.get(`${UP}_scale`));
    expect(widen("BF16", bytes)[at]).toBe(tableOf("BF16")[encode("BF16", Math.fround(240 * scale!))]);
  });

  it("is copied on request, and is named by inspect", async () => {
    const out = join(work, "top-copy");
    const { verification } = await convert(source, out, { fnuz: "keep", verify: "bytes" });
    expect(verification!.verdict).toBe("same");
    expect(weightsIn(out).equals(weightsIn(source))).toBe(true);
    expect((await inspect(out)).quantization!.stores).toEqual(["14 F8_E4M3FNUZ, one scale per tensor"]);
  });

  it.each([
    ["a part of the weights is cast", { dtype: "bf16", recipe: "nemotron-h" }],
    ["another part is cast to FP8", { dtype: "fp8-e4m3" }],
    ["the folder is described anew", { quantDialect: "fp8" }],
  ] as const)("is not copied where %s, because no description names such weights", async (_, options) => {
    const asked = { to: "hf", fnuz: "keep", ...options } as const;
    await expect(plan(source, join(work, "none"), asked)).rejects.toMatchObject({ code: "PLAN_IMPOSSIBLE" });
  });

  it("is refused where nothing says what becomes of it, and the option where nothing is FNUZ", async () => {
    const out = join(work, "top-none");
    await expect(convert(source, out, { verify: "off" })).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
      next: expect.stringContaining("relabel"),
    });
    const plain = fp8Dialects("ct-tensor-dynamic");
    await expect(convert(plain, out, { fnuz: "relabel" })).rejects.toMatchObject({ code: "USAGE" });
  });
});

it("a relabelled folder with the scales of its source is another model", async () => {
  const { fnuz } = await normalised("ct-tensor-dynamic");
  const source = folderOf(fnuz.copy, "twice-source");
  const wrong = new Editor(fnuz.copy);
  for (const [name, { dtype }] of fnuz.copy.tensors)
    if (dtype === "F8_E4M3FNUZ") wrong.put(name, { dtype: "F8_E4M3" });
  const out = folderOf(wrong.copy, "twice");
  expect((await verify(source, out, { verify: "bytes" })).verdict).toBe("different");
});

it("a packed file of FNUZ weights is compared with its digests while it is relabelled", async () => {
  const { fnuz } = await normalised("ct-tensor-dynamic");
  const packed = join(work, "fnuz.isologit");
  await convert(folderOf(fnuz.copy, "packed-source"), packed, { fnuz: "keep", verify: "off" });
  const bytes = readFileSync(packed);
  const codes = Buffer.from(fnuz.get(UP).bytes);
  bytes[bytes.indexOf(codes) + 5]! ^= 1;
  const damaged = join(work, "damaged.isologit");
  writeFileSync(damaged, bytes);
  const out = join(work, "damaged-out");
  await expect(convert(damaged, out, { to: "hf", fnuz: "relabel", verify: "off" })).rejects.toMatchObject({
    code: "DIGEST_MISMATCH",
    at: { tensor: UP },
  });
});
