/** One fault after another planted in a real folder: `check` names the rule and the place, and has nothing to say of sound ones. */
import { cpSync, readFileSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { inspect } from "../../src/api/inspect.ts";
import { recast } from "../../src/api/recast.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { codesOf, copyOf, Editor, oneF32, written } from "../support/verify/planted.ts";

const work = workFolder();
let count = 0;
const fresh = () => join(work, String(count++));

const source = await copyOf(golden("sharded"));
const fp8 = fresh();
await recast(golden("sharded"), fp8, { dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
const quantised = await copyOf(fp8);

const MIXER = "backbone.layers.0.mixer";
const IN = `${MIXER}.in_proj.weight`;

it.each(["tiny", "tiny-t5", "sharded", "moe", "latent-moe", "trained"])("%s is sound", async (name) => {
  const { ok, findings, servable } = await check(golden(name));
  const lacks = name === "tiny-t5" ? ["serving-tokenizer"] : [];
  expect(findings.filter(({ severity }) => severity !== "warning").map(({ rule }) => rule)).toEqual(lacks);
  expect(ok).toBe(true);
  expect(servable).toBe(lacks.length === 0);
});

it("a folder of FP8 is sound", async () =>
  expect(await check(fp8)).toEqual({ ok: true, findings: [], servable: true }));

/** Rule, what is planted, and a part of what is said. */
type Fault = readonly [rule: string, plant: (e: Editor) => void, said: RegExp, from?: typeof source];

const FAULTS: readonly Fault[] = [
  ["tensor-missing", (e) => e.drop(`${MIXER}.D`), /config requires this tensor/],
  [
    "tensor-unknown",
    (e) => e.add("backbone.layers.0.ghost", "BF16", [1], new Uint8Array(2)),
    /config does not describe this tensor/,
  ],
  ["shape-mismatch", (e) => e.config({ n_groups: 2 }), /n_groups 2 where the weights fit 4/],
  [
    "shape-mismatch",
    (e) => e.config({ num_key_value_heads: 4 }),
    /num_key_value_heads 4 where the weights fit 2/,
  ],
  ["config-invalid", (e) => e.config({ num_hidden_layers: 3 }), /num_hidden_layers is 3/],
  ["config-invalid", (e) => e.config({ hybrid_override_pattern: "MX" }), /"X"/],
  ["config-invalid", (e) => e.config({ rms_norm_eps: 1e-2 }), /rms_norm_eps is 0.01/],
  ["config-invalid", (e) => e.config({ transformers_weights: "x.safetensors" }), /which Transformers loads/],
  ["unsupported", (e) => e.config({ mamba_conv_bias: false }), /only true is computed here/],
  ["config-key-unknown", (e) => e.config({ attn_gain: 2 }), /engines may use: attn_gain$/],
  ["config-null", (e) => e.config({ use_cache: null }), /refuses null for use_cache/],
  ["architectures-other", (e) => e.config({ architectures: ["Llama"] }), /class of this model is Nemotron/],
  ["family-unknown", (e) => e.config({ model_type: "gpt2" }), /gpt2/],
  ["tokenizer-vocabulary", (e) => tokens(e, 700), /ids go up to 699, but vocab_size is 512/],
  [
    "token-id-range",
    (e) => e.config({ eos_token_id: 512 }),
    /eos_token_id is 512; the vocabulary has ids 0 to 511/,
  ],
  ["eos-disagrees", (e) => e.config({ eos_token_id: 7 }), /and 7 in config\.json/],
  ["remote-code-missing", (e) => e.copy.files.delete("modeling_nemotron_h.py"), /trust_remote_code/],
  [
    "embedding-spelling",
    (e) => rename(e, "backbone.embeddings.weight", "backbone.embedding.weight"),
    /embeddings/,
  ],
  ["architectures-missing", (e) => e.config({ architectures: undefined }), /architectures/],
  ["quantization-absent", (e) => e.config({ quantization_config: {} }), /no weight is FP8/],
  [
    "quantization-undeclared",
    (e) => e.config({ quantization_config: undefined }),
    /codes for weights/,
    quantised,
  ],
  ["quantization-invalid", (e) => quantization(e, { ignore: [1] }), /not a list of names/, quantised],
  ["quantization-contradiction", (e) => quantization(e, { ignore: [] }), /does not list/, quantised],
  [
    "quantization-contradiction",
    (e) => ignore(e, "backbone.layers.0.*"),
    /lists its module as ignored/,
    quantised,
  ],
  [
    "quantization-contradiction",
    (e) => ignore(e, "model.layers.0"),
    /lists its module as ignored/,
    quantised,
  ],
  [
    "quantization-unchecked",
    (e) => ignore(e, "re:(?<=a++)b"),
    /1 regular expressions could not be/,
    quantised,
  ],
  ["scale-invalid", (e) => e.drop(`${IN}_scale`), /has no scale/, quantised],
  ["scale-range", (e) => e.put(`${IN}_scale`, { bytes: oneF32(0) }), /the scale is 0/, quantised],
  ["scale-range", (e) => e.put(`${IN}_scale`, { bytes: oneF32(Number.NaN) }), /the scale is NaN/, quantised],
  ["scale-range", (e) => e.put(`${IN}_scale`, { bytes: oneF32(4096) }), /a scale of 4096/, quantised],
  [
    "scale-invalid",
    (e) => e.put(IN, { dtype: "F8_E4M3", bytes: codesOf(e.get(IN), "F8_E4M3", 1) }),
    /no scale/,
  ],
];

describe("FP8 that hf_quant_config.json alone declares", () => {
  /** ModelOpt's FP8 with no declaration in config.json, and `quantization` in the file beside it. */
  function declared(quantization: object): string {
    const editor = new Editor(quantised);
    editor.config({ quantization_config: undefined });
    const text = JSON.stringify({ quantization });
    editor.copy.files.set("hf_quant_config.json", new TextEncoder().encode(text));
    return written(editor.copy, fresh());
  }
  const kept = [...quantised.tensors]
    .filter(([name, { dtype }]) => name.endsWith("_proj.weight") && dtype !== "F8_E4M3")
    .map(([name]) => name.replace(/\.weight$/, ""));

  it("is declared", async () => {
    const folder = declared({ quant_algo: "FP8", exclude_modules: kept });
    const { findings } = await check(folder);
    const rules = findings.map(({ rule }) => rule);
    expect(rules).not.toContain("quantization-undeclared");
    expect((await inspect(folder)).quantization).toMatchObject({ method: "modelopt", format: "FP8" });
  });

  it("with no list of modules is told once, as a warning", async () => {
    const { findings } = await check(declared({ quant_algo: "FP8" }));
    const told = findings.filter(({ rule }) => rule.startsWith("quantization-"));
    expect(told.map(({ rule, severity, at }) => [rule, severity, at.file])).toEqual([
      ["quantization-unlisted", "warning", "hf_quant_config.json"],
    ]);
  });
});

for (const [rule, plant, said, from = source] of FAULTS) {
  it(`${rule}: ${said.source}`, async () => {
    const editor = new Editor(from);
    plant(editor);
    const { findings } = await check(written(editor.copy, fresh()));
    const found = findings.filter((one) => one.rule === rule);
    expect(found.map(({ message }) => message).join("\n"), JSON.stringify(findings, null, 1)).toMatch(said);
    for (const { at } of found) expect(at.file).not.toBe("");
  });
}

it("names every tensor that does not fit, not the first", async () => {
  const editor = new Editor(source);
  editor.config({ n_groups: 2 });
  for (const role of ["D", "A_log"]) editor.drop(`${MIXER}.${role}`);
  const { ok, findings } = await check(written(editor.copy, fresh()));
  expect(ok).toBe(false);
  expect(findings.filter(({ rule }) => rule === "tensor-missing").length).toBe(2);
  // in_proj, conv and its bias of six mamba layers: one finding, in which each is named
  const misfits = findings.filter(({ rule }) => rule === "shape-mismatch");
  expect(misfits.map(({ tensors }) => tensors?.length)).toEqual([18]);
  expect(misfits[0]!.message).toMatch(
    /^18 tensors, the first: its shape is \[.*Likely cause: .*n_groups 2 where the weights fit 4/,
  );
});

describe("damaged files", () => {
  const damaged = () => {
    const folder = fresh();
    cpSync(golden("sharded"), folder, { recursive: true });
    return folder;
  };
  const shards = [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`);

  it("stops at the first, or goes through all", async () => {
    const folder = damaged();
    for (const shard of shards.slice(1)) truncateSync(join(folder, shard), 5000);
    expect((await check(folder)).findings.map(({ rule, at }) => [rule, at.file])).toEqual([
      ["truncated", shards[1]],
    ]);
    const { findings } = await check(folder, { keepGoing: true });
    expect(findings.map(({ rule, at }) => [rule, at.file])).toEqual([
      ["truncated", shards[1]],
      ["truncated", shards[2]],
    ]);
  });

  it("a shard that is not there is a finding; a folder that is not there is an error", async () => {
    const folder = damaged();
    unlinkSync(join(folder, shards[1]!));
    const { findings } = await check(folder);
    expect(findings.map(({ rule, at }) => [rule, at.file])).toEqual([["index-mismatch", shards[1]]]);
    await expect(check(join(work, "nowhere"))).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("an index and headers that disagree", async () => {
    const folder = damaged();
    const path = join(folder, "model.safetensors.index.json");
    writeFileSync(path, readFileSync(path, "utf8").replace(/"lm_head.weight": /, '"lm_tail.weight": '));
    expect((await check(folder)).findings.map(({ rule }) => rule)).toEqual(["index-mismatch"]);
  });
});

function tokens(editor: Editor, count: number): void {
  const vocab = Object.fromEntries(Array.from({ length: count }, (_, id) => [`t${id}`, id]));
  editor.copy.files.set("tokenizer.json", Buffer.from(JSON.stringify({ model: { vocab } })));
}

function rename(editor: Editor, from: string, to: string): void {
  const { dtype, shape, bytes } = editor.get(from);
  editor.drop(from);
  editor.add(to, dtype, shape, bytes);
}

function quantization(editor: Editor, change: Readonly<Record<string, unknown>>): void {
  editor.config({ quantization_config: { ...quantized(editor), ...change } });
}

function ignore(editor: Editor, pattern: string): void {
  quantization(editor, { ignore: [...(quantized(editor).ignore as string[]), pattern] });
}

function quantized(editor: Editor): Readonly<Record<string, unknown>> {
  return editor.json("config.json").quantization_config as Record<string, unknown>;
}
