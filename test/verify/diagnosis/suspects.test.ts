/** What seems to have happened to a tensor, and which tensor of a bad layer is named first. */
import { describe, expect, it } from "vitest";
import { convert } from "../../../src/api/convert.ts";
import type { VerifyOptions } from "../../../src/certificate/options.ts";
import { widen } from "../../../src/core/float.ts";
import { findErrorPattern } from "../../../src/verify/diagnosis/error-pattern.ts";
import { golden, workFolder } from "../../support/goldens.ts";
import { copyOf, Editor, opened } from "../../support/verify/planted.ts";
import { verifyCheckpoints } from "../../support/verify/verify-checkpoints.ts";

const work = workFolder();
const QUICK: VerifyOptions = { threads: 1, memoryBytes: 64 * 1024 * 1024, verify: "bytes" };
const tiny = await copyOf(golden("tiny"));
const at = (layer: number, part: string) => `backbone.layers.${layer}.mixer.${part}.weight`;
const [Q, K, O, UP, IN] = [
  at(3, "q_proj"),
  at(3, "k_proj"),
  at(3, "o_proj"),
  at(1, "up_proj"),
  at(2, "in_proj"),
];

function shapeAfter(name: string, plant: (e: Editor) => void) {
  const editor = new Editor(tiny);
  plant(editor);
  const [right, wrong] = [tiny.tensors.get(name)!, editor.get(name)];
  const [expected, found] = [right.bytes, wrong.bytes];
  const values = { expected: widen("BF16", expected), found: widen("BF16", found) };
  return findErrorPattern({ expected, found, width: 2, shape: right.shape, values });
}

describe("the shape of an error", () => {
  it.each<[string, string, (e: Editor) => void, kind: string, text: string]>([
    ["nothing", Q, () => {}, "none", "its elements are right"],
    ["zeroed", Q, (e) => e.bytes(Q, (b) => b.fill(0)), "zeroed", "zeroed: all of it"],
    ["half zeroed", Q, (e) => e.bytes(Q, (b) => b.fill(0, 4096)), "zeroed", "zeroed: 2048 of 4096 elements"],
    ["a bit", Q, (e) => e.flip(Q, 77), "few", "1 of 4096 elements differ, the first at 77"],
    ["blocks", IN, (e) => e.swapRows(IN, 0, 128, 128), "permuted", "rows 0 to 127 and 128 to 255 exchanged"],
    ["two rows", Q, (e) => e.swapRows(Q, 5, 9, 1), "permuted", "rows 5 and 9 exchanged"],
    [
      "reversed",
      Q,
      (e) => e.rows(Q, (r, n) => n - 1 - r),
      "permuted",
      "rows in another order: 64 of 64 moved",
    ],
    ["rows shifted", UP, (e) => e.rows(UP, (r, n) => (r + 3) % n), "shifted", "rows shifted by 3"],
    [
      "columns",
      UP,
      (e) => e.columns(UP, (c, n) => (c + n / 2) % n),
      "permuted",
      "columns 0 to 31 and 32 to 63 exchanged",
    ],
    [
      "columns reversed",
      UP,
      (e) => e.columns(UP, (c, n) => n - 1 - c),
      "permuted",
      "columns in another order: 64 of 64 moved",
    ],
    ["transposed, square", Q, (e) => e.transpose(Q), "transposed", "transposed"],
    ["transposed, not square", UP, (e) => e.transpose(UP), "transposed", "transposed"],
    ["5 % off", Q, (e) => e.values(Q, (v) => v * 1.05), "scaled", "scaled by 1.05"],
    ["halved", Q, (e) => e.values(Q, (v) => v / 2), "scaled", "scaled by 0.5"],
    ["negated", Q, (e) => e.values(Q, (v) => -v), "negated", "negated"],
    [
      "an element too far",
      Q,
      (e) => e.bytes(Q, (b) => b.copyWithin(2, 0)),
      "shifted",
      "shifted by 1 elements",
    ],
    ["noise", Q, (e) => e.values(Q, (v, i) => v + Math.sin(i * i) / 50), "other", "cosine"],
  ])("%s", (_, name, plant, kind, text) => {
    const shape = shapeAfter(name, plant);
    expect(shape.kind).toBe(kind);
    expect(shape.text).toContain(text);
    expect(shape.suspicion).toBeGreaterThan(0);
    expect(shape.suspicion).toBeLessThanOrEqual(1);
  });
});

describe("suspects of the first bad layer", () => {
  it("the one that a mistake explains comes before a damaged one, whatever their order", async () => {
    const editor = new Editor(tiny);
    editor.flip(Q, 3);
    editor.swapRows(K, 0, 16, 16);
    editor.values(O, (v, i) => v + Math.sin(i * i) / 500);
    const report = await verifyCheckpoints(await opened(tiny), await opened(editor.copy), QUICK);
    expect(report.firstDivergence).toMatchObject({ layer: 3, tensors: [K, O, Q] });
    expect(report.findings).toEqual([
      `suspect ${K}: rows 0 to 15 and 16 to 31 exchanged`,
      expect.stringContaining(`suspect ${O}: `),
      `suspect ${Q}: 1 of 4096 elements differ, the first at 3`,
    ]);
  });

  it("names the tensor whose place it took", async () => {
    const editor = new Editor(tiny);
    editor.swap(UP, at(4, "up_proj"));
    const report = await verifyCheckpoints(await opened(tiny), await opened(editor.copy), QUICK);
    expect(report.findings).toEqual([`suspect ${UP}: holds main.4.mlp.up`]);
  });

  it("looks through a recast: codes are held against the right rounding", async () => {
    await convert(golden("tiny"), `${work}/fp8`, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
    const editor = new Editor(await copyOf(`${work}/fp8`));
    editor.swapRows(IN, 256, 288, 32);
    const report = await verifyCheckpoints(await opened(tiny), await opened(editor.copy), QUICK);
    expect(report.findings).toEqual([`suspect ${IN}: rows 256 to 287 and 288 to 319 exchanged`]);
    const scaled = new Editor(await copyOf(`${work}/fp8`));
    scaled.f32(`${UP}_scale`, (scale) => scale * 1.05);
    const other = await verifyCheckpoints(await opened(tiny), await opened(scaled.copy), QUICK);
    expect(other.findings.join()).toMatch(/suspect .*up_proj\.weight: scaled by 1\.0[45]/);
  });
});
