/** The reference rung: logits of other software, in every form that a recording may have, and what must not pass. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import type { VerifyOptions } from "../../src/api.ts";
import { convert } from "../../src/convert/convert.ts";
import type { DType } from "../../src/core/dtype.ts";
import { verify } from "../../src/verify/verify.ts";
import { codeOf } from "../errors.ts";
import { arraysOf, floatsOf, golden, idsOf, type StoredArray, workFolder } from "../goldens.ts";
import { copyOf, Editor, written } from "./planted.ts";

const work = workFolder();
const QUICK = { threads: 1, memoryBytes: 64 * 1024 * 1024 };
const recordedFor = (name: string) => join(golden(name), "reference.safetensors");
const sharded = await arraysOf(recordedFor("sharded"));
const meets = (folder: string, reference: string, options: VerifyOptions = {}) =>
  verify(folder, undefined, { ...QUICK, ...options, reference });

type Entry = Pick<StoredArray, "dtype" | "shape" | "bytes">;
let files = 0;
function recording(entries: Readonly<Record<string, Entry>>, metadata: Record<string, string> = {}): string {
  const all = Object.entries(entries).map(([name, entry]) => ({ name, ...entry }));
  const path = `${work}/${files++}.safetensors`;
  writeFileSync(path, Buffer.concat([encodeHeader(all, metadata), ...all.map(({ bytes }) => bytes)]));
  return path;
}
const f32 = (values: Float32Array, shape: readonly number[]): Entry => {
  return { dtype: "F32", shape, bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
};
const ints = (values: readonly number[], shape: readonly number[], dtype: DType = "I64"): Entry => {
  const array = dtype === "I64" ? BigInt64Array.from(values, BigInt) : Int32Array.from(values);
  return { dtype, shape, bytes: new Uint8Array(array.buffer) };
};
const [ids, logits] = [idsOf(sharded.get("input_ids.len17")!), floatsOf(sharded.get("logits_f32.len17")!)];

describe("what Transformers recorded is met", () => {
  it.each(["tiny", "sharded"])("%s: three prompts, hidden states too", async (name) => {
    const report = await meets(golden(name), recordedFor(name));
    expect(report.rungs).toHaveLength(1);
    expect(report.rungs[0]).toMatchObject({
      rung: "reference",
      verdict: "same",
      metrics: { prompts: 3, tokens: 148, arithmetic: "float32", top1: 1 },
    });
    expect(report.rungs[0]!.metrics.relL2).toBeLessThan(5e-6);
    expect(report).toMatchObject({ verdict: "same", firstDivergence: null, certificate: null });
  });

  it("with batches of one, a padded vocabulary, 32-bit ids, no suffix", async () => {
    const padded = new Float32Array(17 * 640);
    for (let t = 0; t < 17; t++) padded.set(logits.subarray(t * 512, (t + 1) * 512), t * 640);
    const file = recording({ input_ids: ints(ids, [1, 17], "I32"), logits: f32(padded, [1, 17, 640]) });
    expect((await meets(golden("sharded"), file)).rungs[0]).toMatchObject({ verdict: "same" });
  });

  it("in BF16 within wider limits, and only there", async () => {
    const bf16 = { input_ids: ints(ids, [17]), logits: sharded.get("logits_bf16.len17")! };
    expect((await meets(golden("sharded"), recording(bf16))).rungs[0]).toMatchObject({
      verdict: "within",
      metrics: { arithmetic: "bfloat16" },
    });
    const widened = Float32Array.from(logits, (x, i) => x * (1 + 0.01 * Math.sin(i)));
    const asF32 = { input_ids: ints(ids, [17]), logits: f32(widened, [17, 512]) };
    expect((await meets(golden("sharded"), recording(asF32))).verdict).toBe("different");
    expect((await meets(golden("sharded"), recording(asF32, { compute: "bfloat16" }))).verdict).toBe(
      "within",
    );
  });

  it("as log-probabilities of a few words", async () => {
    const k = 5;
    const [words, values]: [number[], number[]] = [[], []];
    for (let t = 0; t < 17; t++) {
      const row = [...logits.subarray(t * 512, (t + 1) * 512)];
      const norm = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      const best = row.map((x, word) => [x, word] as const).sort(([a], [b]) => b - a);
      for (const [x, word] of best.slice(0, k)) {
        words.push(word);
        values.push(x - norm);
      }
    }
    const entries = (of: readonly number[]) => ({
      "input_ids.a": ints(ids, [17]),
      "logprob_ids.a": ints(of, [17, k]),
      "logprobs.a": f32(Float32Array.from(values), [17, k]),
    });
    const report = await meets(golden("sharded"), recording(entries(words)));
    expect(report.rungs[0]).toMatchObject({ verdict: "same", metrics: { top1: 1 } });
    const wrong = words.with(7, (words[7]! + 1) % 512);
    expect((await meets(golden("sharded"), recording(entries(wrong)))).verdict).toBe("different");
  });
});

describe("what is not met is different", () => {
  it("Δ clamped, as Transformers' CPU path does", async () => {
    const { shape } = sharded.get("input_ids.len130")!;
    const file = recording({
      input_ids: ints(idsOf(sharded.get("input_ids.len130")!), shape),
      logits: sharded.get("logits_f32_dtmin.len130")!,
    });
    expect(await meets(golden("sharded"), file)).toMatchObject({ verdict: "different" });
  });

  it.each(["layer_norm_epsilon", "time_step_limit"])("another %s", async (key) => {
    const editor = new Editor(await copyOf(golden("sharded")));
    const text = editor.text("config.json").replaceAll("Infinity", "1e30"); // as large, and JSON
    editor.copy.files.set("config.json", Buffer.from(text));
    editor.config({ [key]: key === "layer_norm_epsilon" ? 1e-6 : [0.001, 100] });
    const folder = written(editor.copy, `${work}/${key}`);
    expect((await meets(folder, recordedFor("sharded"))).verdict).toBe("different");
  });

  it("a wrong layer is named by the hidden states", async () => {
    const editor = new Editor(await copyOf(golden("tiny")));
    editor.swapRows("backbone.layers.5.mixer.in_proj.weight", 256, 288, 32);
    const folder = written(editor.copy, `${work}/swapped`);
    expect(await meets(folder, recordedFor("tiny"))).toMatchObject({
      verdict: "different",
      firstDivergence: { layer: 5, kind: "mamba", tensors: [] },
    });
  });
});

describe("beside the other rungs", () => {
  it("A meets it, B is compared with A, and the certificate says so", async () => {
    const out = `${work}/certified`;
    const options = { ...QUICK, tokens: 17, reference: recordedFor("tiny") };
    const { verification } = await convert(golden("tiny"), out, {
      to: "hf",
      dtype: "fp8-e4m3",
      keepEnds: 0,
      ...options,
    });
    expect(verification?.rungs.map(({ rung, verdict }) => `${rung} ${verdict}`)).toEqual([
      "cover same",
      "bytes within",
      "logits within",
      "reference same",
    ]);
    expect(verification?.certificate?.reference).toBe(true);
    const both = await verify(golden("tiny"), out, options);
    expect(both.rungs.at(-1)).toMatchObject({ rung: "reference", verdict: "same" });
  });

  it("a reference that is not met keeps the destination from appearing", async () => {
    const options = { ...QUICK, tokens: 17, reference: recordedFor("sharded") };
    const report = await convert(golden("tiny"), `${work}/unmet`, { to: "hf", ...options });
    expect(report.verification?.verdict).toBe("different");
    expect(report.staged).toBe(`${work}/unmet.partial`);
  });
});

describe("what is no recording is refused", () => {
  const good = { input_ids: ints(ids, [17]), logits: f32(logits, [17, 512]) };
  it.each<[string, Record<string, Entry>]>([
    ["no ids", { logits: good.logits }],
    ["no logits", { input_ids: good.input_ids }],
    ["another vocabulary", { ...good, logits: f32(logits.subarray(0, 17 * 511), [17, 511]) }],
    ["another length", { ...good, input_ids: ints(ids.slice(1), [16]) }],
    ["an id outside", { ...good, input_ids: ints(ids.with(3, 512), [17]) }],
    ["ids that are no integers", { ...good, input_ids: f32(Float32Array.from(ids), [17]) }],
    ["logits that are no numbers", { ...good, logits: ints([...logits].map(Math.round), [17, 512]) }],
    [
      "log-probabilities of nothing",
      { input_ids: good.input_ids, logprobs: f32(new Float32Array(17), [17, 1]) },
    ],
  ])("%s", async (_, entries) => {
    expect(await codeOf(() => meets(golden("sharded"), recording(entries)))).toBe("USAGE");
  });

  it("a file that is missing, or damaged", async () => {
    expect(await codeOf(() => meets(golden("tiny"), `${work}/none`))).toBe("NOT_FOUND");
    writeFileSync(`${work}/cut`, "1234567");
    expect(await codeOf(() => meets(golden("tiny"), `${work}/cut`))).toBe("TRUNCATED");
    expect(await codeOf(() => meets(golden("tiny"), recordedFor("tiny"), { verify: "bytes" }))).toBe("USAGE");
  });
});

describe("--tolerance", () => {
  const yaml = (text: string): string => {
    const path = `${work}/${files++}.yaml`;
    writeFileSync(path, text);
    return path;
  };

  it("is read for a recast, flags win, and nothing else is widened", async () => {
    const fp8 = `${work}/fp8`;
    await convert(golden("tiny"), fp8, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
    const limits = async (b: string, options: VerifyOptions) =>
      (await verify(golden("tiny"), b, { ...QUICK, tokens: 17, ...options })).limits;
    const tolerance = yaml("kl: 0.5\nklP99: 2\ntop1: 0.25\n");
    expect(await limits(fp8, { tolerance })).toEqual({ klMean: 0.5, klP99: 2, top1: 0.25, wiring: 0 });
    expect(await limits(fp8, { tolerance, kl: 0.1 })).toMatchObject({ klMean: 0.1, klP99: 2 });
    expect(await limits(golden("tiny"), { tolerance })).toEqual({ klMean: 0, klP99: 0, top1: 1, wiring: 0 });
  });

  it.each(["wiring: 1", "kl: -1", "top1: 2", "- 1", "kl: [", "kl: many"])("%j is refused", async (text) => {
    const options = { ...QUICK, tolerance: yaml(text) };
    expect(await codeOf(() => verify(golden("tiny"), golden("tiny"), options))).toBe("USAGE");
  });
});
