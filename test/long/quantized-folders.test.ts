/** Folders that ModelOpt, compressed-tensors and Transformers quantised, and the same folders with faults. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { bitsOfF32, encode, encodeBits, f32OfBits, tableOf, widen } from "../../src/core/float.ts";
import { codeCheck } from "../../src/workers/code-bound.ts";
import { floatsOf, fp8Dialects, golden, workFolder } from "../support/goldens.ts";
import { type Copy, copyOf, Editor, opened } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const folders = readdirSync(fp8Dialects(""), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);

describe("an honest folder of another tool is the same model within its recast", () => {
  it.each(folders)("%s", async (folder) => {
    const report = await verify(golden("tiny"), fp8Dialects(folder), { tokens: 16, backend: "wasm" });
    const { rungs, findings } = report;
    expect({ verdict: report.verdict, findings }).toMatchObject({ verdict: "within" });
    expect(rungs.map(({ verdict }) => verdict)).toEqual(["within", "within", "within"].with(0, "same"));
    const { wiring } = rungs[2]!.metrics as { wiring: { maxRelL2: number } };
    expect(wiring.maxRelL2).toBe(0);
  });

  it("tells how many codes are not the nearest: ModelOpt divides in BF16", async () => {
    const { findingDetails } = await verify(golden("tiny"), fp8Dialects("modelopt-fp8"), { verify: "bytes" });
    const found = findingDetails!.find(({ rule }) => rule === "codes-not-nearest");
    expect(found?.message).toMatch(/^3\.1 % of the codes of 14 weights/);
    const other = await verify(golden("tiny"), fp8Dialects("ct-tensor-static"), { verify: "bytes" });
    expect(other.findingDetails!.map(({ rule }) => rule)).not.toContain("codes-not-nearest");
  });
});

const work = workFolder();
const BYTES: VerifyOptions = { verify: "bytes", threads: 1, memoryBytes: 64 * 1024 * 1024 };
const UP = "backbone.layers.1.mixer.up_proj";
const tiny = await opened(await copyOf(golden("tiny")));

async function verdictOf(copy: Copy) {
  const report = await verifyCheckpoints(tiny, await opened(copy), BYTES);
  const bytes = report.rungs.find(({ rung }) => rung === "bytes")!;
  const { differences } = bytes.metrics as { differences: readonly { tensors: readonly string[] }[] };
  return { verdict: bytes.verdict, tensors: differences.flatMap(({ tensors }) => tensors) };
}

/** A fault in the weight UP of each folder; `scale` and `codes` are the names of its tensors. */
const FAULTS: readonly [string, (editor: Editor, codes: string, scale: string) => void][] = [
  ["a scale a quarter larger", (editor, _, scale) => changeScale(editor, scale, 1.25)],
  ["a scale a quarter smaller", (editor, _, scale) => changeScale(editor, scale, 0.75)],
  ["two rows of codes exchanged", (editor, codes) => editor.swapRows(codes, 3, 40, 1)],
  ["codes of all rows reversed", (editor, codes) => editor.rows(codes, (row, rows) => rows - 1 - row)],
  ["the signs of all codes lost", loseSigns],
];

function changeScale(editor: Editor, name: string, factor: number): void {
  const { dtype } = editor.get(name);
  editor.bytes(name, (bytes) => {
    if (dtype === "F32") {
      const view = new DataView(bytes.buffer);
      view.setFloat32(0, view.getFloat32(0, true) * factor, true);
    } else bytes[0] = bytes[0]! + (factor > 1 ? 1 : -1) * (dtype === "U8" ? 1 : 4);
  });
}

/** Bit 7 is the sign of an FP8 code; bits 7 and 3 are the signs of two codes of E2M1. */
function loseSigns(editor: Editor, name: string): void {
  const mask = editor.get(name).dtype === "U8" ? 0x77 : 0x7f;
  editor.bytes(name, (bytes) => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = bytes[i]! & mask;
  });
}

describe.each(folders)("%s with a fault", (folder) => {
  it.each(FAULTS)("%s", async (_, fault) => {
    const editor = new Editor(await copyOf(fp8Dialects(folder)));
    const has = (name: string) => editor.copy.tensors.has(name);
    const codes = has(`${UP}.weight_packed`) ? `${UP}.weight_packed` : `${UP}.weight`;
    const scale = has(`${UP}.weight_scale_inv`) ? `${UP}.weight_scale_inv` : `${UP}.weight_scale`;
    fault(editor, codes, scale);
    const { verdict, tensors } = await verdictOf(editor.copy);
    expect(verdict).toBe("different");
    expect(tensors).toContain(`${UP}.weight`);
  });
});

const plain = new Editor(await copyOf(golden("tiny")));

async function bytesVerdict(copy: Copy, strictScales: boolean) {
  const { rungs } = await verifyCheckpoints(tiny, await opened(copy), BYTES, strictScales);
  return rungs.find(({ rung }) => rung === "bytes")!.verdict;
}

// one scale for the tensor, and three for blocks of 128 rows; the recipe keeps two layers at each end
it.each(["backbone.layers.4.mixer.up_proj", "backbone.layers.2.mixer.in_proj"])(
  "a neighbour of the nearest code of %s is accepted in a file of another tool, and refused in our own",
  async (module) => {
    const out = join(work, `own-${module}`);
    await convert(golden("tiny"), out, { dtype: "fp8-e4m3", quantScales: "block", verify: "off" });
    const editor = new Editor(await copyOf(out));
    const { bytes, shape } = plain.get(`${module}.weight`);
    const weights = widen("BF16", bytes);
    const scales = floatsOf(editor.get(`${module}.weight_scale`));
    const { isWithin } = codeCheck("F8_E4M3");
    editor.bytes(`${module}.weight`, (codes) => {
      const at = codes.findIndex((code, i) => {
        const scale = scales[Math.floor(i / shape[1]! / 128)]!;
        const below = Math.fround(tableOf("F8_E4M3")[code - 1]! * scale);
        return code > 0x40 && code < 0x7f && isWithin(weights[i]!, below, scale);
      });
      codes[at] = codes[at]! - 1;
    });
    expect(await bytesVerdict(await copyOf(out), true)).toBe("within");
    expect(await bytesVerdict(editor.copy, false)).toBe("within");
    expect(await bytesVerdict(editor.copy, true)).toBe("different");
  },
);

it("amax / 448 rounded to BF16 is a scale of another tool, and another smaller scale clips", async () => {
  const editor = new Editor(await copyOf(fp8Dialects("ct-tensor-dynamic")));
  const bf16 = (x: number) => f32OfBits((encodeBits("BF16", bitsOfF32(x)) << 16) >>> 0);
  const scaleOf = (name: string) => floatsOf(editor.get(name))[0]!;
  const names = [...editor.copy.tensors.keys()].filter((name) => name.endsWith("weight_scale"));
  const below = names.filter((name) => bf16(scaleOf(name)) < scaleOf(name));
  expect(below.length).toBeGreaterThan(0);
  const recast = (name: string, scale: number) => {
    const weight = name.replace(/_scale$/, "");
    const codes = [...widen("BF16", plain.get(weight).bytes)].map((x) =>
      encode("F8_E4M3", Math.max(-448, Math.min(448, bf16(x / scale)))),
    );
    editor.put(weight, { bytes: Uint8Array.from(codes) });
    editor.put(name, { bytes: new Uint8Array(Float32Array.of(scale).buffer) });
  };
  for (const name of names) recast(name, bf16(scaleOf(name)));
  expect(await bytesVerdict(editor.copy, false)).toBe("within");
  expect(await bytesVerdict(editor.copy, true)).toBe("different");
  recast(below[0]!, Math.fround(scaleOf(below[0]!) * (1 - 2 ** -12)));
  expect(await bytesVerdict(editor.copy, false)).toBe("different");
});

it.each(["row", "block", "mxfp8"] as const)(
  "our own scales of %s are held to amax / 448",
  async (quantScales) => {
    const out = join(work, `own-${quantScales}`);
    const { verification } = await convert(golden("tiny"), out, {
      dtype: "fp8-e4m3",
      quantScales,
      tokens: 8,
      backend: "wasm",
    });
    expect(verification!.verdict).toBe("within");
    const editor = new Editor(await copyOf(out));
    const name = "backbone.layers.2.mixer.in_proj.weight_scale";
    editor.bytes(name, (bytes) => {
      const last = bytes.length - (quantScales === "mxfp8" ? 1 : 4);
      bytes[last] = bytes[last]! ^ 1; // the lowest bit of the last scale
    });
    const { rungs } = await verifyCheckpoints(tiny, await opened(editor.copy), BYTES, true);
    const { verdict, metrics } = rungs.find(({ rung }) => rung === "bytes")!;
    expect(verdict).toBe("different");
    expect(JSON.stringify(metrics)).toContain("backbone.layers.2.mixer.in_proj.weight");
  },
);
