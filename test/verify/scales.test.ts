/** What a scale may cost: codes that are the right rounding under it prove nothing of the scale. */
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { scaleOf } from "../../src/cast/cast.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { bitsOfF32, f32OfBits, widen } from "../../src/core/float.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Copy, codesOf, copyOf, Editor, oneF32, opened } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const BYTES: VerifyOptions = { verify: "bytes", threads: 1, memoryBytes: 64 * 1024 * 1024 };
const tiny = await copyOf(golden("tiny"));

const recipe = "all-linear";
await convert(golden("tiny"), `${work}/fp8`, { to: "hf", dtype: "fp8-e4m3", recipe, verify: "off" });
const fp8 = await copyOf(`${work}/fp8`);

const amaxOf = (copy: Copy, name: string) =>
  widen("BF16", copy.tensors.get(name)!.bytes).reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** A weight's nearest codes under another scale. */
function rescaled(editor: Editor, source: Copy, name: string, scale: number): void {
  editor.put(name, { bytes: codesOf(source.tensors.get(name)!, "F8_E4M3", scale) });
  editor.put(`${name}_scale`, { bytes: oneF32(scale) });
}

/** As the bytes rung says: configs are another rung's. */
async function judged(a: Copy, b: Copy, options = BYTES, strict = false) {
  const report = await verifyCheckpoints(await opened(a), await opened(b), options, strict);
  const { verdict } = report.rungs[1]!;
  const { differences } = metricsWith(report, "bytes", "recast");
  return {
    verdict,
    findings: report.findings.join("; "),
    messages: differences.map(({ message }) => message),
  };
}

const UP4 = "backbone.layers.4.mixer.up_proj.weight";
const attention = (part: string) => `backbone.layers.3.mixer.${part}_proj.weight`;

describe("a scale beside amax / max", () => {
  const best = scaleOf(amaxOf(tiny, UP4), "F8_E4M3");
  const powerOfTwo = 2 ** Math.ceil(Math.log2(best));
  const ulpAbove = f32OfBits(bitsOfF32(2 * best) + 2);

  it.each([
    ["the next power of two", powerOfTwo],
    ["twice amax / max", 2 * best],
  ])("%s is another tool's right, and told", async (_, scale) => {
    const editor = new Editor(fp8);
    rescaled(editor, tiny, UP4, scale);
    const { verdict, findings } = await judged(tiny, editor.copy);
    expect(verdict).toBe("within");
    expect(findings).toContain(`${UP4}: its scale is ${scale}; amax/max is`);
  });

  it.each([
    ["just above twice", ulpAbove],
    ["eight times", 8 * best],
    ["2^14 times, a few subnormal codes left", 2 ** 14 * best],
    ["2^30, every code 0", 2 ** 30],
  ])("%s is different", async (_, scale) => {
    const editor = new Editor(fp8);
    rescaled(editor, tiny, UP4, Math.fround(scale));
    const { verdict, messages } = await judged(tiny, editor.copy);
    expect(verdict).toBe("different");
    expect(messages).toEqual([expect.stringContaining(`times amax/max = ${best}`)]);
  });

  it("of prediction layers and of experts that nobody chose is held to the same", async () => {
    const source = await copyOf(golden("latent-moe"));
    for (const part of [/^mtp\..*latent/, /\.experts\.7\.up/]) {
      const names = [...source.tensors.keys()].filter((name) => part.test(name));
      expect(names.length).toBeGreaterThan(1);
      const recast = async (scaleFor: (name: string) => number) => {
        const editor = new Editor(source);
        for (const name of names) {
          editor.put(name, { dtype: "F8_E4M3" });
          editor.add(`${name}_scale`, "F32", [1], oneF32(1));
          rescaled(editor, source, name, scaleFor(name));
        }
        return judged(source, editor.copy);
      };
      expect((await recast((name) => scaleOf(amaxOf(source, name), "F8_E4M3"))).verdict).toBe("within");
      const { verdict, messages } = await recast(() => 2 ** 30);
      expect(verdict).toBe("different");
      expect(messages).toHaveLength(names.length);
    }
  });
});

describe("one scale for q, k and v", () => {
  const parts = ["q", "k", "v"].map(attention);
  /** v is a sixteenth of what it was, so that the scale of the three is far more than twice its own */
  const source = new Editor(tiny);
  source.values(attention("v"), (value) => value / 16);
  const best = Math.max(...parts.map((name) => scaleOf(amaxOf(source.copy, name), "F8_E4M3")));
  const sharing = (scale: number, of: readonly string[], strict = false) => {
    const editor = new Editor(fp8);
    const own = (name: string) => scaleOf(amaxOf(source.copy, name), "F8_E4M3");
    for (const name of parts) rescaled(editor, source.copy, name, of.includes(name) ? scale : own(name));
    return judged(source.copy, editor.copy, BYTES, strict);
  };

  it("of this version is the largest of theirs and no other, for all three", async () => {
    expect((await sharing(best, parts, true)).messages).toEqual([]);
    expect((await sharing(best, [attention("v")], true)).messages).toHaveLength(1);
    expect((await sharing(2 ** Math.ceil(Math.log2(best)), parts, true)).messages).toHaveLength(3);
  });

  it("is the largest of theirs, or the next power of two: right, and told", async () => {
    for (const scale of [best, 2 ** Math.ceil(Math.log2(best))]) {
      const { verdict, findings } = await sharing(scale, parts);
      expect(verdict).toBe("within");
      expect(findings).toContain("the largest of attn.q, attn.k, attn.v, which share the scale");
    }
  });

  it("is different where it is more than twice the largest, or the three do not share it", async () => {
    expect((await sharing(4 * best, parts)).messages).toHaveLength(3);
    expect((await sharing(best, [attention("v")])).messages).toHaveLength(1);
  });
});

describe("what became 0 is weighed whatever the scale", () => {
  const recast = async (change: (editor: Editor) => void) => {
    const editor = new Editor(tiny);
    change(editor);
    const codes = new Editor(fp8);
    rescaled(codes, editor.copy, UP4, scaleOf(amaxOf(editor.copy, UP4), "F8_E4M3"));
    return judged(editor.copy, codes.copy);
  };

  it("one element so large that half of the others are lost beside it", async () => {
    const { verdict, messages } = await recast((e) => e.values(UP4, (v, i) => (i === 0 ? 2 ** 30 : v)));
    expect(verdict).toBe("different");
    expect(messages).toEqual(["6143 of 6144 elements that are not 0 in the source became 0"]);
  });

  it("one that leaves the others subnormal codes", async () => {
    const { messages } = await recast((e) => e.values(UP4, (v, i) => (i === 0 ? 2 ** 13 : v)));
    expect(messages).toEqual([expect.stringContaining("became 0 or a subnormal code")]);
  });

  it("weights that F16 has no numbers for", async () => {
    const [source, halves] = [new Editor(tiny), new Editor(tiny)];
    source.values(UP4, (v) => v * 2 ** -40);
    const signs = Uint16Array.from(widen("BF16", source.get(UP4).bytes), (v) => (v < 0 ? 0x8000 : 0));
    halves.put(UP4, { dtype: "F16", bytes: new Uint8Array(signs.buffer) });
    const { messages } = await judged(source.copy, halves.copy);
    expect(messages).toEqual([expect.stringMatching(/^(\d+) of \1 elements .* became 0$/)]);
  });

  it("a few rows that are lost are told by number", async () => {
    const inRow = 64;
    const { verdict, findings } = await recast((e) =>
      e.values(UP4, (v, i) => (Math.floor(i / inRow) >= 90 ? v * 2 ** -21 : v)),
    );
    expect(verdict).toBe("within");
    expect(findings).toContain(`${UP4}: 6 of 96 rows (rows 90 to 95) became 0 with the scale of the tensor`);
  });
});

describe("honest oddities stay right", () => {
  const UP1 = "backbone.layers.1.mixer.up_proj.weight";
  const through = async (change: (value: number) => number) => {
    const source = new Editor(tiny);
    source.values(UP1, change);
    const codes = new Editor(fp8);
    rescaled(codes, source.copy, UP1, scaleOf(amaxOf(source.copy, UP1), "F8_E4M3"));
    return { source: source.copy, codes: codes.copy };
  };

  it("subnormal weights", async () => {
    const { source, codes } = await through((v) => v * 1e-39);
    expect((await judged(source, codes)).verdict).toBe("within");
  });

  it.each([1, 2 ** -23, 0.003, 7])("a weight of zeros, under the scale %f", async (scale) => {
    const { source, codes } = await through(() => 0);
    const editor = new Editor(codes);
    editor.put(`${UP1}_scale`, { bytes: oneF32(Math.fround(scale)) });
    expect((await judged(source, editor.copy)).verdict).toBe("within");
  });
});
