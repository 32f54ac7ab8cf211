/** The reference rung: logits of other software, in every form that a recording may have, and what must not pass. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import type { DType } from "../../src/core/dtype.ts";
import { codeOf } from "../support/errors.ts";
import {
  arraysOf,
  familyGolden,
  floatsOf,
  golden,
  idsOf,
  type StoredArray,
  workFolder,
} from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

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
    expect(metricsWith(report, "reference", "relL2").relL2).toBeLessThan(5e-6);
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
});

describe("log-probabilities of a few words are met", () => {
  const k = 5;
  /** Log-probabilities of every word at a position, and the words from the likeliest on. */
  const rows = Array.from({ length: 17 }, (_, t) => {
    const row = [...logits.subarray(t * 512, (t + 1) * 512)];
    const norm = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
    const best = [...row.keys()].sort((a, b) => row[b]! - row[a]!);
    return { logprobs: row.map((x) => x - norm), best };
  });
  type Word = readonly [word: number, logprob: number];
  const top: readonly (readonly Word[])[] = rows.map(({ logprobs, best }) =>
    best.slice(0, k).map((word) => [word, logprobs[word]!]),
  );
  /** Rows of unlike lengths are filled up with -1 and minus infinity, as other software does it. */
  const filled = (words: readonly (readonly Word[])[]) => {
    const width = Math.max(...words.map(({ length }) => length));
    const nothing: Word = [-1, Number.NEGATIVE_INFINITY];
    const all = words.flatMap((row) => [...row, ...Array(width - row.length).fill(nothing)]) as Word[];
    const shape = [words.length, width];
    return {
      "input_ids.a": ints(ids, [17]),
      "logprob_ids.a": ints(
        all.map(([word]) => word),
        shape,
      ),
      "logprobs.a": f32(
        Float32Array.from(all, ([, logprob]) => logprob),
        shape,
      ),
    };
  };
  const rung = async (words: readonly (readonly Word[])[]) =>
    (await meets(golden("sharded"), recording(filled(words)))).rungs[0]!;
  const with5 = (row: readonly Word[]) => top.with(5, row);

  it("of the likeliest", async () => {
    expect(await rung(top)).toMatchObject({ verdict: "same", metrics: { top1: 1 } });
  });

  it("and of the token that came, where it is not among them", async () => {
    const came = top.map((row, t) => {
      const word = ids[t + 1];
      if (word === undefined || row.some(([known]) => known === word)) return row;
      return [[word, rows[t]!.logprobs[word]!] as const, ...row];
    });
    expect(came.some(({ length }) => length > k)).toBe(true);
    expect(await rung(came)).toMatchObject({ verdict: "same", metrics: { top1: 1 } });
  });

  it("where the first position has none, or all but the last", async () => {
    expect(await rung(top.with(0, []))).toMatchObject({ verdict: "same", metrics: { top1: 1 } });
    expect(await rung(top.map((row, t) => (t < 16 ? [] : row)))).toMatchObject({ verdict: "same" });
  });

  it("not with another word, a word twice as likely, or one that cannot be", async () => {
    const [[word, logprob], ...rest] = top[5] as [Word, ...Word[]];
    for (const wrong of [
      [[(word + 1) % 512, logprob], ...rest],
      [[word, logprob + Math.LN2], ...rest],
      [[word, Number.NEGATIVE_INFINITY], ...rest],
      [[word, Number.NaN], ...rest],
    ] as const) {
      expect(await rung(with5(wrong))).toMatchObject({ verdict: "different" });
    }
  });

  it("not a position early or late", async () => {
    expect(await rung([...top.slice(1), []])).toMatchObject({ verdict: "different" });
    expect(await rung([[], ...top.slice(0, -1)])).toMatchObject({ verdict: "different" });
  });

  it("nor with ids that no word has, or none at all: that is no recording", async () => {
    for (const words of [with5([[512, -1]]), with5([[-2, -1]]), top.map(() => [[-1, -1]] as const)]) {
      expect(await codeOf(() => rung(words))).toBe("USAGE");
    }
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
    const epsilon = { layer_norm_epsilon: 1e-6, rms_norm_eps: 1e-6 }; // keys of one setting must agree
    editor.config(key === "layer_norm_epsilon" ? epsilon : { [key]: [0.001, 100] });
    const folder = written(editor.copy, `${work}/${key}`);
    expect((await meets(folder, recordedFor("sharded"))).verdict).toBe("different");
  });

  it("a wrong block is named by the hidden states of software that counts blocks", async () => {
    const reference = join(familyGolden("llama"), "reference.safetensors");
    expect(await meets(familyGolden("llama"), reference)).toMatchObject({ verdict: "same" });
    const editor = new Editor(await copyOf(familyGolden("llama")));
    editor.swap("model.layers.2.mlp.gate_proj.weight", "model.layers.2.mlp.up_proj.weight");
    const folder = written(editor.copy, `${work}/gated`);
    expect(await meets(folder, reference)).toMatchObject({
      verdict: "different",
      firstDivergence: { layer: 5, kind: "mlp" },
    });
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
