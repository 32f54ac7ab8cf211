/** What differs is told by role and by how much, across formats; what does not, is equal. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { recast } from "../../src/api/recast.ts";
import { bitsOfF32, decode, encode, f32OfBits } from "../../src/core/float.ts";
import { Difference } from "../../src/diff/difference.ts";
import type { DiffReport } from "../../src/diff/report.ts";
import { arraysOf, golden, workFolder } from "../support/goldens.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
let count = 0;
const fresh = (ending = "") => join(work, `${count++}${ending}`);
const tiny = await copyOf(golden("tiny"));
const plain = written(tiny, fresh());

const unlike = ({ tensors }: DiffReport) => tensors.filter(({ equal }) => !equal);

it("a folder and its packed file are equal", async () => {
  const packed = fresh(".isologit");
  await convert(plain, packed, { verify: "off" });
  const report = await diff(plain, packed);
  expect(report.equal).toBe(true);
  expect(report.tensors.length).toBe(58);
});

it("one bit is found, and is one unit in the last place", async () => {
  const editor = new Editor(tiny);
  editor.flip("backbone.layers.3.mixer.k_proj.weight", 7);
  const report = await diff(plain, written(editor.copy, fresh()));
  expect(report.equal).toBe(false);
  const [only, ...others] = unlike(report);
  expect(others).toEqual([]);
  expect(only).toMatchObject({ role: "attn.k", layer: 3, ulp: 1 });
  expect(only!.maxAbs).toBeGreaterThan(0);
});

it("a recast differs by what its rounding makes, scales applied", async () => {
  const fp8 = fresh();
  await recast(plain, fp8, { dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
  const report = await diff(plain, fp8);
  const name = "backbone.layers.0.mixer.in_proj.weight";
  const [before, after] = [tiny.tensors.get(name)!, await arraysOf(join(fp8, "model.safetensors"))];
  const scale = new Float32Array(after.get(`${name}_scale`)!.bytes.slice().buffer)[0]!;
  const words = new Uint16Array(before.bytes.slice().buffer);
  let [square, between, most] = [0, 0, 0];
  for (const [i, code] of after.get(name)!.bytes.entries()) {
    const value = f32OfBits((words[i]! << 16) >>> 0);
    const apart = Math.fround(decode("F8_E4M3", code) * scale) - value;
    [square, between, most] = [square + value ** 2, between + apart ** 2, Math.max(most, Math.abs(apart))];
  }
  const told = report.tensors.find(({ role, layer }) => role === "ssm.in" && layer === 0)!;
  expect(told).toMatchObject({ equal: false, ulp: null, maxAbs: most });
  expect(told.relL2).toBeCloseTo(Math.sqrt(between / square), 12);
  expect(
    unlike(report)
      .map(({ role }) => role)
      .sort(),
  ).toEqual(
    report.tensors
      .map(({ role }) => role)
      .filter((role) => /^(ssm\.(in|out)|mlp\.(up|down))$/.test(role))
      .sort(),
  );
});

it("a template's changed lines, a changed key and a lost file are named", async () => {
  const editor = new Editor(tiny);
  const template = editor.text("chat_template.jinja").split("\n");
  editor.copy.files.set("chat_template.jinja", Buffer.from(["new", ...template].join("\n")));
  editor.copy.files.delete("generation_config.json");
  editor.config({ layer_norm_epsilon: 1e-6, rms_norm_eps: 1e-6 }); // both keys of the setting
  const report = await diff(plain, written(editor.copy, fresh()));
  expect(unlike(report)).toEqual([]);
  expect(report.equal).toBe(false);
  expect(report.config).toEqual(
    ["layer_norm_epsilon", "rms_norm_eps"].map((key) => ({ key, a: 1e-5, b: 1e-6 })),
  );
  expect(report.sidecars.map(({ path, b, lines }) => [path, b === null, lines])).toEqual([
    ["chat_template.jinja", false, { from: 1, a: [], b: ["new"] }],
    ["generation_config.json", true, undefined],
  ]);
});

it("a tensor of another shape and one that is missing are told, and nothing else is lost", async () => {
  const report = await diff(golden("tiny"), golden("sharded"));
  expect(report.equal).toBe(false);
  expect(report.tensors.some(({ error }) => error?.includes("[512, 64] / [512, 128]"))).toBe(true);
  expect(report.tensors.some(({ a, b }) => a === null && b !== null)).toBe(true);
});

it("distances on the number line of a dtype count each code once, zeros of both signs as one", () => {
  const bf16 = (value: number) => {
    const code = encode("BF16", value);
    return [code & 255, code >>> 8];
  };
  const bytes = (...values: number[]) => Uint8Array.from(values.flatMap(bf16));
  const tiny = f32OfBits(bitsOfF32(1) + 0x10000); // the BF16 after 1
  const cases = [
    [bytes(1), bytes(tiny), 1],
    [bytes(0), bytes(-0), 0],
    [bytes(2 ** -133), bytes(-(2 ** -133)), 2],
  ] as const;
  for (const [a, b, ulp] of cases) {
    const difference = new Difference({ dtype: "BF16", scale: null }, { dtype: "BF16", scale: null }, true);
    difference.add(a, b);
    expect(difference.result()).toMatchObject({ equal: false, ulp });
  }
});

it("NaN and infinity are as far away as can be", () => {
  const f32 = (...values: number[]) => new Uint8Array(Float32Array.of(...values).buffer);
  const side = { dtype: "F32", scale: null } as const;
  const apart = (a: Uint8Array, b: Uint8Array) => {
    const difference = new Difference(side, side, true);
    difference.add(a, b);
    return difference.result();
  };
  expect(apart(f32(1), f32(Number.NaN))).toMatchObject({ equal: false, maxAbs: Infinity, relL2: Infinity });
  expect(apart(f32(0), f32(1))).toMatchObject({ maxAbs: 1, relL2: Infinity });
  expect(apart(f32(Infinity, 1), f32(Infinity, 2))).toMatchObject({ maxAbs: 1 });
});
