/** The policy of side files: as the documentation tells it, and as verdicts and findings follow it. */
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { haveSameMeaning } from "../../src/side-files/meaning.ts";
import { CONFIG_KEYS, SIDE_FILES, sideFileKind } from "../../src/side-files/rules.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { type Copy, copyOf, Editor, opened, written } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const BYTES: VerifyOptions = { threads: 1, memoryBytes: 64 * 1024 * 1024, verify: "bytes" };
const tiny = await copyOf(golden("tiny"));
tiny.files.set("modeling.py", Buffer.from("pass"));
tiny.files.set("tokenizer.model", Buffer.from("pieces"));

const bytesOf = (value: unknown) =>
  value instanceof Uint8Array
    ? value
    : Buffer.from(typeof value === "string" ? value : JSON.stringify(value));

/** Files by path that B has in place of A's; null: B lacks it. */
type Files = Readonly<Record<string, unknown>>;

function edited(from: Copy, files: Files): Copy {
  const { copy } = new Editor(from);
  for (const [path, value] of Object.entries(files)) {
    if (value === null) copy.files.delete(path);
    else copy.files.set(path, bytesOf(value));
  }
  return copy;
}

async function told(a: Copy, b: Copy, options: VerifyOptions = {}) {
  const report = await verifyCheckpoints(await opened(a), await opened(b), { ...BYTES, ...options });
  const found = report.findingDetails.map(({ rule, severity, at }) => `${severity} ${rule} ${at.file}`);
  return { verdict: report.verdict, found, report };
}

describe("docs/verification.md", () => {
  const text = readFileSync(new URL("../../docs/verification.md", import.meta.url), "utf8");
  /** Cells of the table below a line, heads and rule apart. */
  const cellsBelow = (head: RegExp): string[][] => {
    const rows = text.slice(text.search(head)).split("\n\n")[0]!.split("\n").slice(2);
    return rows.map((row) =>
      row
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  };

  it("has the table of side files", () => {
    expect(cellsBelow(/^\| side file/m)).toEqual(
      SIDE_FILES.map(({ kind, files, differs, missing, added, uncertified, why }) => [
        files === "" ? kind : `${kind}: ${files}`,
        ...[differs, missing, added, uncertified],
        why,
      ]),
    );
  });

  it("has the table of config keys", () => {
    expect(cellsBelow(/^\| key of /m).slice(1)).toEqual(
      CONFIG_KEYS.map(({ keys, differs, recast, why }) => [keys, differs, recast, why]),
    );
  });
});

describe("each kind", () => {
  it.each<[string, string]>([
    ["model.safetensors.index.json", "index of other weights"],
    ["model.safetensors", "another set of the weights"],
    ["model-00001-of-00002.safetensors", "another set of the weights"],
    ["._tokenizer.json", "notes of an operating system"],
    ["optimizer.pt", "training state"],
    ["checkpoint-500/model.safetensors", "training state"],
    ["adapter_config.json", "adapter"],
    ["adapter_model.safetensors", "adapter"],
    ["reference.safetensors", "other tensors"],
    ["pytorch_model-00001-of-00002.bin", "weights for other loaders"],
    ["pytorch_model.bin.index.json", "weights for other loaders"],
    ["onnx/decoder.onnx", "weights for other loaders"],
    ["tokenizer.json", "tokenizer"],
    ["tokenizer.model", "tokenizer"],
    ["spiece.model", "tokenizer"],
    ["sentencepiece.bpe.model", "tokenizer"],
    ["cl100k.tiktoken", "tokenizer"],
    ["tekken.json", "tokenizer"],
    ["hf_quant_config.json", "quantisation settings"],
    ["tokenizer_config.json", "settings and parts of a tokenizer"],
    ["merges.txt", "settings and parts of a tokenizer"],
    ["additional_chat_templates/tool.jinja", "chat template"],
    ["generation_config.json", "generation settings"],
    ["sub/modeling.py", "remote code"],
    ["README.md", "documentation"],
    ["LICENSE.txt", "documentation"],
    [".gitattributes", "documentation"],
    ["images/loss.png", "documentation"],
    ["Tokenizer.json", "any other file"],
    ["preprocessor_config.json", "any other file"],
  ])("%s: %s", (path, kind) => expect(sideFileKind(path).kind).toBe(kind));

  it.each<[string, Files, "same" | "different", readonly string[]]>([
    [
      "index beside",
      { "model.safetensors.index.json": {} },
      "different",
      ["error file-absent model.safetensors.index.json"],
    ],
    [
      "stale shard",
      { "model-00001-of-00002.safetensors": "x" },
      "different",
      ["error file-absent model-00001-of-00002.safetensors"],
    ],
    ["adapter", { "adapter_config.json": {} }, "different", ["error file-absent adapter_config.json"]],
    ["training state", { "optimizer.pt": "x" }, "same", ["note file-absent optimizer.pt"]],
    ["weights for others", { "pytorch_model.bin": "x" }, "same", ["warning file-absent pytorch_model.bin"]],
    ["tokenizer changed", { "tokenizer.json": {} }, "different", ["error file-differs tokenizer.json"]],
    ["pieces changed", { "tokenizer.model": "pieceS" }, "different", ["error file-differs tokenizer.model"]],
    ["tokenizer missing", { "tokenizer.json": null }, "same", ["warning file-absent tokenizer.json"]],
    ["tokenizer added", { "spiece.model": "x" }, "same", ["warning file-absent spiece.model"]],
    [
      "class of a tokenizer",
      { "tokenizer_config.json": {} },
      "same",
      ["warning file-differs tokenizer_config.json"],
    ],
    [
      "special tokens",
      { "special_tokens_map.json": null },
      "same",
      ["warning file-absent special_tokens_map.json"],
    ],
    [
      "parts of a tokenizer",
      { "vocab.json": {}, "merges.txt": "" },
      "same",
      ["warning file-absent merges.txt", "warning file-absent vocab.json"],
    ],
    ["chat template", { "chat_template.jinja": "x" }, "same", ["warning file-differs chat_template.jinja"]],
    ["generation", { "generation_config.json": {} }, "same", ["warning file-differs generation_config.json"]],
    ["remote code", { "modeling.py": "import os" }, "same", ["warning file-differs modeling.py"]],
    [
      "remote code added",
      { "configuration.py": "import os" },
      "same",
      ["warning file-absent configuration.py"],
    ],
    [
      "documentation",
      { "README.md": "mine", "plot.png": "x" },
      "same",
      ["note file-absent README.md", "note file-absent plot.png"],
    ],
    ["an unknown file", { "notes.yaml": "x" }, "same", ["warning file-absent notes.yaml"]],
  ])("%s", async (_, files, verdict, found) => {
    expect(await told(tiny, edited(tiny, files))).toMatchObject({ verdict, found });
    const strict = await told(tiny, edited(tiny, files), { strict: true });
    const decides = found.some((one) => !one.startsWith("note"));
    expect(strict.verdict).toBe(decides ? "different" : "same");
    expect(strict.found).toEqual(found.map((one) => one.replace("warning", "error")));
  });

  it("what both have alike is nothing, weights of others too", async () => {
    const both = edited(tiny, { "adapter_config.json": {}, "pytorch_model.bin": "x", "README.md": "x" });
    expect(await told(both, both, { strict: true })).toMatchObject({ verdict: "same", found: [] });
  });

  it("what decides is listed once in the cover rung, and once as a finding", async () => {
    const { report } = await told(tiny, edited(tiny, { "tokenizer.json": {} }));
    expect(report.rungs[0]).toMatchObject({
      verdict: "different",
      metrics: { settings: ["tokenizer.json differs"] },
    });
    expect(report.findings).toEqual(["tokenizer.json differs"]);
  });
});

describe("weights that loaders may take instead", () => {
  const work = workFolder();
  const plain = written(tiny, `${work}/plain`);
  const { tensors } = tiny;
  const index = (file: string) =>
    JSON.stringify({ weight_map: Object.fromEntries([...tensors.keys()].map((name) => [name, file])) });
  const beside = async (name: string, files: Files) => {
    const { verdict, findingDetails } = await verify(
      plain,
      written(edited(tiny, files), `${work}/${name}`),
      BYTES,
    );
    return [verdict, ...findingDetails.map(({ severity, at }) => `${severity} ${at.file}`)];
  };
  const weights = readFileSync(`${plain}/model.safetensors`);

  it("a file that holds tensors of the model, whatever its name", async () => {
    expect(await beside("rival", { "extra.safetensors": weights })).toEqual([
      "different",
      "error extra.safetensors",
    ]);
  });

  it("an index of such a file", async () => {
    const files = { "model-00001-of-00001.safetensors": weights };
    const named = { ...files, "model.safetensors.index.json": index("model-00001-of-00001.safetensors") };
    expect(await beside("indexed", named)).toEqual([
      "different",
      "error model-00001-of-00001.safetensors",
      "error model.safetensors.index.json",
      "warning model.safetensors", // there are two sets
    ]);
  });

  it("not an index that names the weights that are read", async () => {
    const named = { "model.safetensors.index.json": index("model.safetensors") };
    expect(await beside("harmless", named)).toEqual(["same"]);
  });

  it("what a conversion leaves out is not missing", async () => {
    const files = { "extra.safetensors": weights, "optimizer.pt": "x", "pytorch_model.bin": "x", "._x": "" };
    const from = written(edited(tiny, files), `${work}/from`);
    const { verification } = await convert(from, `${work}/to`, { ...BYTES, to: "hf", strict: true });
    expect(verification).toMatchObject({ verdict: "same", findings: [] });
  });
});

describe("config.json", () => {
  const withKeys = (keys: Files): Copy => {
    const editor = new Editor(tiny);
    editor.config(keys);
    return editor.copy;
  };

  it.each<[string, Files, string]>([
    ["token ids and classes", { eos_token_id: 3, use_cache: false }, "warning config-differs config.json"],
    ["who wrote it", { transformers_version: "9" }, "note config-differs config.json"],
    ["the type", { torch_dtype: "float32" }, "warning config-differs config.json"],
    ["nothing but spelling", {}, "note config-respelt config.json"],
    [
      "a key of a setting that is left to its alias",
      { rms_norm_eps: undefined },
      "note config-differs config.json",
    ],
    ["a key that nothing reads", { expand: 3, time_step_rank: 7 }, "note config-differs config.json"],
    ["a key that no table has", { unheard_of: 1 }, "warning config-differs config.json"],
  ])("%s", async (_, keys, found) => {
    const { verdict, found: all } = await told(tiny, withKeys(keys));
    expect([verdict, all[0]]).toEqual(["same", found]); // that the type is not the weights' is told besides
  });
});

it("a config.json that was kept for the way home is compared by its keys", async () => {
  const work = workFolder();
  const nemo = `${work}/nemo2`;
  await convert(golden("tiny"), nemo, { ...BYTES, to: "nemo2", verify: "off" });
  const path = `${nemo}/isologit.origin/config.json`;
  const config = JSON.parse(readFileSync(path, "utf8").replaceAll("Infinity", '"Infinity"'));
  writeFileSync(
    path,
    JSON.stringify({ ...config, eos_token_id: 7, rms_norm_eps: 1e-5 }).replaceAll('"Infinity"', "Infinity"),
  );
  for (const from of [golden("tiny"), nemo]) {
    const { verdict, findingDetails } = await verify(from, nemo, BYTES);
    expect(verdict).toBe("same");
    const found = findingDetails.map(({ severity, message }) => `${severity} ${message}`);
    expect(found).toEqual(from === nemo ? [] : ["warning config.json differs in eos_token_id"]);
  }
});

it("a weight file of a format that Transformers refuses is told", async () => {
  const work = workFolder();
  const plain = written(tiny, `${work}/plain`);
  const other = written(tiny, `${work}/other`);
  const bytes = readFileSync(`${other}/model.safetensors`);
  bytes.write("tf", bytes.indexOf('"format":"pt"') + 10);
  writeFileSync(`${other}/model.safetensors`, bytes);
  const { verdict, findingDetails } = await verify(plain, other, BYTES);
  expect(verdict).toBe("same");
  expect(findingDetails).toMatchObject([
    { rule: "metadata-format", severity: "warning", at: { file: "model.safetensors" } },
  ]);
  expect((await verify(other, other, BYTES)).findings).toEqual([]);
});

describe("a file that says the same in other words", () => {
  const text = Buffer.from(tiny.files.get("tokenizer.json")!).toString();
  const value = JSON.parse(text);
  const reversed = (object: object) => Object.fromEntries(Object.entries(object).reverse());
  const escaped = (json: string) =>
    json.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

  it.each<[string, string]>([
    ["white space", JSON.stringify(value, null, 4)],
    ["the order of keys", JSON.stringify({ ...reversed(value), model: reversed(value.model) })],
    ["escapes", escaped(JSON.stringify(value)).replace('"version"', '"\\u0076ersion"')],
    [
      "merges as pairs",
      JSON.stringify({
        ...value,
        model: {
          ...value.model,
          merges: value.model.merges.map((m: string | string[]) =>
            typeof m === "string" ? m.split(" ") : m,
          ),
        },
      }),
    ],
  ])("%s", async (_, other) => {
    expect(await told(tiny, edited(tiny, { "tokenizer.json": other }), { strict: true })).toMatchObject({
      verdict: "same",
      found: ["note file-respelt tokenizer.json"],
    });
  });

  it("an id, a merge, or a token more is another tokenizer", async () => {
    const vocab = { ...value.model.vocab };
    const [first, second] = Object.keys(vocab).slice(5, 7);
    [vocab[first!], vocab[second!]] = [vocab[second!], vocab[first!]];
    const merges = value.model.merges.slice(0, -1);
    for (const model of [
      { ...value.model, vocab },
      { ...value.model, merges },
    ]) {
      const other = edited(tiny, { "tokenizer.json": { ...value, model } });
      expect((await told(tiny, other)).verdict).toBe("different");
    }
  });

  it.each<[string, string, string, boolean]>([
    [
      "numbers that JavaScript would round to one",
      '{"a":9007199254740993}',
      '{"a": 9007199254740992}',
      false,
    ],
    ["an id that is spelt as a fraction", '{"a":5}', '{"a": 5.0}', false],
    ["a zero that has a sign", '{"a":0}', '{"a": -0}', false],
    ["scores that are whole", '{"a":[0.0,-1.5]}', '{ "a":[ 0.0, -1.5 ] }', true],
    ["digits in a text", '{"a":"5.0"}', '{"a": "5\\u002e0"}', true],
    ["fractions", '{"a":0.1}', '{"a": 1e-1}', true],
    ["a key twice", '{"a":1,"a":2}', '{"a":2, "a":2}', false],
    ["no JSON", "{", "{ ", false],
    ["half of a character", '{"a":"\\ud800"}', '{"a":"\\ufffd"}', false],
    ["a list in another order", "[1,2]", "[2,1]", false],
    [
      "a merge that is no pair",
      '{"model":{"merges":["a b c"]}}',
      '{"model":{"merges":[["a","b c"]]}}',
      false,
    ],
  ])("%s", (_, a, b, same) => {
    expect(haveSameMeaning("tokenizer.json", Buffer.from(a), Buffer.from(b))).toBe(same);
  });

  it("is asked of JSON only", () => {
    expect(haveSameMeaning("chat_template.jinja", Buffer.from("{}"), Buffer.from("{ }"))).toBe(false);
  });
});
