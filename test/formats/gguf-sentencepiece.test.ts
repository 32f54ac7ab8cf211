/**
 * SentencePiece tokenizers in GGUF: keys as llama.cpp's converter writes them, and ids as SentencePiece, Transformers and llama.cpp
 * give them. Those three agree on every text of the fixture.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeGgufHeader, type WrittenKey } from "../../formats/codec/gguf/encode.ts";
import { gguf } from "../../formats/gguf/format.ts";
import { tokenizerFiles } from "../../formats/gguf/tokenizer/files.ts";
import { tokenizerKeys } from "../../formats/gguf/tokenizer/keys.ts";
import { areAlike } from "../../formats/gguf/tokenizer/merges.ts";
import { readSentencePieceModel } from "../../formats/gguf/tokenizer/model-file.ts";
import { hf } from "../../formats/hf/format.ts";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import type { TypedValue } from "../../src/core/checkpoint.ts";
import { readRange } from "../../src/core/io.ts";
import { fileStore } from "../../src/io/file.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { familyGolden, filesOf, workFolder } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";

const work = workFolder();
const run = { verify: "off", threads: 1 } as const;
const ROWS = 512;
const fixture = (name: string) => new URL(`../../fixtures/sentencepiece/${name}`, import.meta.url).pathname;
const bytesOf = (name: string) => new Uint8Array(readFileSync(fixture(name)));
const jsonOf = (name: string) => JSON.parse(readFileSync(fixture(name), "utf8"));

interface Expected {
  /** ids by llama.cpp, by SentencePiece if the text has no special tokens, and by Transformers with either tokenizer.json */
  readonly texts: readonly {
    readonly text: string;
    readonly llama: readonly number[];
    readonly sentencepiece?: readonly number[];
    readonly transformers: readonly number[];
    readonly metaspace: readonly number[];
  }[];
}
const { texts }: Expected = jsonOf("expected.json");

/** The files of a tokenizer, some of them changed or left out, and the config of the model. */
function filesWith(changed: Readonly<Record<string, object | Uint8Array | null>> = {}) {
  const names = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"];
  const files = new Map<string, Uint8Array>(names.map((name) => [name, bytesOf(name)]));
  files.set("config.json", new Uint8Array(readFileSync(join(familyGolden("llama"), "config.json"))));
  for (const [path, value] of Object.entries(changed))
    if (value === null) files.delete(path);
    else
      files.set(path, value instanceof Uint8Array ? value : new TextEncoder().encode(JSON.stringify(value)));
  return files;
}

const valuesOf = (files: ReadonlyMap<string, Uint8Array>) =>
  Object.fromEntries(tokenizerKeys(files, ROWS).keys.map(({ key, value }) => [key.split(".").at(-1), value]));

/** The keys of llama.gguf; lists as their bytes. */
async function genuineValues(): Promise<Readonly<Record<string, unknown>>> {
  const { metadata, store } = await gguf.read(await fileStore(fixture("llama.gguf")));
  await using source = await store.open("llama.gguf");
  const listOf = async ({ type, count, span }: TypedValue) => {
    const bytes = Buffer.from(await readRange(source, span.offset, span.size));
    if (type === "string[]") return stringsIn(bytes);
    return Array.from({ length: count! }, (_, i) =>
      type === "f32[]" ? bytes.readFloatLE(4 * i) : bytes.readInt32LE(4 * i),
    );
  };
  const entries = metadata!.filter(({ key }) => key.startsWith("tokenizer.ggml."));
  return Object.fromEntries(
    await Promise.all(
      entries.map(async (entry) => [
        entry.key.split(".").at(-1),
        entry.type.endsWith("[]") ? await listOf(entry) : entry.value,
      ]),
    ),
  );
}

function stringsIn(bytes: Buffer): string[] {
  const found: string[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = Number(bytes.readBigUInt64LE(at));
    found.push(bytes.toString("utf8", at + 8, at + 8 + size));
    at += 8 + size;
  }
  return found;
}

describe("keys of the genuine converter", () => {
  it.each([
    ["all files", filesWith()],
    ["tokenizer.model without tokenizer.json", filesWith({ "tokenizer.json": null })],
    ["tokenizer.json without tokenizer.model", filesWith({ "tokenizer.model": null })],
    ["a tokenizer.json with merges as texts", filesWith({ "tokenizer.json": mergesAsTexts() })],
  ])("follow from %s", async (_, files) => {
    const wanted = await genuineValues();
    const found = valuesOf(files);
    const unsaid = ["add_eos_token", "add_sep_token"]; // both false
    expect(Object.keys(wanted)).toEqual(
      expect.arrayContaining(["tokens", "scores", "token_type", ...unsaid]),
    );
    for (const [key, value] of Object.entries(wanted))
      if (!unsaid.includes(key)) expect(found[key], key).toEqual(value); // scores too, where -0 is not 0
    expect(found.add_space_prefix).toBe(true);
    expect(tokenizerKeys(files, ROWS).notes).toEqual([]);
  });

  it("scores follow the order of the merges where ids have another one", () => {
    const { model, ...rest } = jsonOf("tokenizer.json");
    const ids = Object.entries<number>(model.vocab);
    const turned = ids.map(([text, id]) => [text, id < 259 ? id : 758 - id]);
    const files = filesWith({
      "tokenizer.model": null,
      "tokenizer.json": { ...rest, model: { ...model, vocab: Object.fromEntries(turned) } },
    });
    expect(tokenizerKeys(files, ROWS).notes).toEqual([]);
    const { tokens, scores } = valuesOf(files) as { tokens: string[]; scores: number[] };
    const scoreOf = (text: string) => scores[tokens.indexOf(text)]!;
    const merged = model.merges.map(([left, right]: [string, string]) => scoreOf(left + right));
    expect(merged).toEqual(merged.toSorted((a: number, b: number) => b - a));
  });
});

/** The tokenizer with its merges as older software writes them. */
function mergesAsTexts() {
  const { model, ...rest } = jsonOf("tokenizer.json");
  return { ...rest, model: { ...model, merges: model.merges.map((pair: string[]) => pair.join(" ")) } };
}

/** The model of the fixture in a folder, with these files of its tokenizer. */
function folderWith(name: string, ...files: readonly string[]): string {
  const folder = join(work, name);
  mkdirSync(folder);
  for (const file of ["config.json", "generation_config.json", "model.safetensors"])
    cpSync(join(familyGolden("llama"), file), join(folder, file));
  for (const file of files) cpSync(fixture(file), join(folder, file));
  return folder;
}

async function idsOf(path: string): Promise<readonly (readonly number[])[]> {
  const store = await fileStore(path);
  const tokenizer = await tokenizerOf(
    await (path.endsWith(".gguf") ? gguf.read(store, { makeFiles: true }) : hf.read(store)),
  );
  return texts.map(({ text }) => tokenizer!.encode(text));
}

/** A file without the files that it carries: their keys get other names. */
function withoutCarried(path: string): string {
  const foreign = path.replace(".gguf", " alone.gguf");
  writeFileSync(
    foreign,
    readFileSync(path, "latin1").replaceAll("isologit.origin", "elsewise.origin"),
    "latin1",
  );
  return foreign;
}

describe("ids of a tokenizer", () => {
  const wanted = texts.map(({ llama }) => llama);

  it("are those of the real libraries in the fixture", () => {
    for (const { text, llama, transformers, sentencepiece } of texts) {
      expect(transformers, text).toEqual(llama);
      if (sentencepiece !== undefined) expect(sentencepiece, text).toEqual(llama);
    }
  });

  it("come home from a file of llama.cpp", async () => {
    expect(await idsOf(fixture("llama.gguf"))).toEqual(wanted);
    const back = join(work, "genuine back");
    await convert(fixture("llama.gguf"), back, { ...run, to: "hf", like: familyGolden("llama") });
    const { model, ...rest } = JSON.parse(readFileSync(join(back, "tokenizer.json"), "utf8"));
    const { model: published, ...steps } = jsonOf("tokenizer.json");
    const ofOne = ({ post_processor: { single }, ...others }: typeof steps) => ({ ...others, single }); // not of a pair of texts
    expect(ofOne(rest)).toEqual(ofOne(steps));
    expect(areAlike(model.merges, published.merges, (text) => published.vocab[text])).toBe(true);
    const added = steps.added_tokens.map(({ content, id }: { content: string; id: number }) => [content, id]);
    expect(model.vocab).toEqual({ ...published.vocab, ...Object.fromEntries(added) });
  });

  it.each([
    ["all files", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]],
    ["tokenizer.json alone", ["tokenizer.json", "tokenizer_config.json"]],
    ["tokenizer.model alone", ["tokenizer.model", "tokenizer_config.json"]],
  ])("come home with every file, from %s", async (name, files) => {
    const folder = folderWith(name, ...files);
    const [file, back] = [join(work, `${name}.gguf`), join(work, `${name} back`)];
    expect((await plan(folder, file, run)).warnings).toEqual([]);
    await convert(folder, file, run);
    await convert(file, back, { ...run, to: "hf" });
    expect(filesOf(back)).toEqual(filesOf(folder));
    const foreign = withoutCarried(file);
    expect((await inspect(foreign)).gguf!.tokenizer).toMatchObject({
      model: "llama",
      pre: "default",
      tokens: ROWS,
    });
    expect(await idsOf(foreign)).toEqual(wanted);
  });

  it("come home without a space before the text, and with a last token", async () => {
    const { normalizer, ...rest } = jsonOf("tokenizer.json");
    const first = { SpecialToken: { id: "<s>", type_id: 0 } };
    const post_processor = {
      ...{ type: "TemplateProcessing", pair: [] },
      single: [first, { Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
      special_tokens: {
        "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] },
        "</s>": { id: "</s>", ids: [2], tokens: ["</s>"] },
      },
    };
    const folder = folderWith("bare", "tokenizer.json");
    const changed = { ...rest, normalizer: normalizer.normalizers[1], post_processor };
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(changed));
    writeFileSync(
      join(folder, "tokenizer_config.json"),
      '{"bos_token": "<s>", "eos_token": {"content": "</s>"}}',
    );
    const file = join(work, "bare.gguf");
    await convert(folder, file, run);
    const { metadata } = await gguf.read(await fileStore(file));
    const said = (key: string) => metadata!.find((entry) => entry.key === `tokenizer.ggml.${key}`)?.value;
    expect(["add_space_prefix", "add_bos_token", "add_eos_token"].map(said)).toEqual([false, true, true]);
    const ids = await idsOf(withoutCarried(file));
    expect(ids).toEqual(await idsOf(folder));
    expect(ids[2]).toEqual([1, 396, 2]); // "a": its token without a space before it
  });
});

describe("single keys", () => {
  const alone = (changed: Parameters<typeof filesWith>[0]) =>
    valuesOf(filesWith({ "tokenizer.json": null, "config.json": {}, ...changed }));
  const withAdded = (content: string) => {
    const { added_tokens, ...rest } = jsonOf("tokenizer.json");
    return filesWith({
      "tokenizer.json": { ...rest, added_tokens: [...added_tokens, { id: 502, content, special: false }] },
    });
  };

  it("are those of tokenizer.model where no other file says them", () => {
    const found = alone({ "tokenizer_config.json": null });
    const { bos_token_id, eos_token_id, unknown_token_id, padding_token_id, add_bos_token, token_type } =
      found;
    expect([bos_token_id, eos_token_id, unknown_token_id, padding_token_id]).toEqual([1, 2, 0, undefined]);
    expect([add_bos_token, (token_type as number[]).slice(0, 4)]).toEqual([true, [2, 3, 3, 6]]);
  });

  it("name tokens that only tokenizer.model has", () => {
    expect(alone({ "tokenizer_config.json": { pad_token: "</s>" } }).padding_token_id).toBe(2);
    expect(alone({ "added_tokens.json": { "<tool>": 500 }, "tokenizer_config.json": null }).tokens).toContain(
      "<tool>",
    );
  });

  it("follow settings before anything else, and no id that is no token", () => {
    const settings = { add_bos_token: false, add_prefix_space: false, bos_token: "<s>" };
    const files = filesWith({ "tokenizer_config.json": settings, "config.json": { pad_token_id: -1 } });
    const { add_bos_token, add_space_prefix, padding_token_id } = valuesOf(files);
    expect([add_bos_token, add_space_prefix, padding_token_id]).toEqual([false, false, undefined]);
    const unset = { "tokenizer_config.json": { pad_token: "<no>" }, "config.json": { pad_token_id: ROWS } };
    expect(valuesOf(filesWith(unset)).padding_token_id).toBeUndefined();
  });

  it.each([
    ["<|turn|>", "<|turn|>", 3],
    ["▁▁deep", "  deep", 4],
  ])("write the added token %s as %s, of type %i", (content, text, type) => {
    const { tokens, token_type } = valuesOf(withAdded(content)) as { tokens: string[]; token_type: number[] };
    expect([tokens[502], token_type[502]]).toEqual([text, type]);
  });
});

describe("files made of keys", () => {
  const vocabulary: readonly WrittenKey[] = [
    { key: "tokenizer.ggml.model", type: "string", value: "llama" },
    { key: "tokenizer.ggml.tokens", type: "string[]", value: ["<unk>", "<s>", "</s>", "a", "b", "ab", "aa"] },
    { key: "tokenizer.ggml.scores", type: "f32[]", value: [0, 0, 0, -2, -3, -1, -1] },
    { key: "tokenizer.ggml.token_type", type: "i32[]", value: [2, 3, 3, 1, 1, 1, 4] },
  ];
  const made = async (keys: readonly WrittenKey[]) => {
    const bytes = encodeGgufHeader(keys, []).bytes;
    const store = memoryStore("m", new Map([["m.gguf", bytes]]));
    return await tokenizerFiles((await gguf.read(store)).metadata!, store);
  };

  it("have the defaults of llama.cpp where keys are missing, and merge into no added token", async () => {
    const files = await made(vocabulary);
    const read = (path: string) => JSON.parse(new TextDecoder().decode(files.get(path)));
    const { added_tokens, model, post_processor, normalizer } = read("tokenizer.json");
    expect(added_tokens.map(({ content, special }: AddedToken) => [content, special])).toEqual([
      ...[
        ["<unk>", true],
        ["<s>", true],
        ["</s>", true],
      ],
      ["aa", false],
    ]);
    expect([model.unk_token, model.merges]).toEqual(["<unk>", [["a", "b"]]]);
    expect(post_processor.single[0]).toEqual({ SpecialToken: { id: "<s>", type_id: 0 } });
    expect(normalizer.normalizers[0]).toEqual({ type: "Prepend", prepend: "▁" });
    const { bos_token, eos_token, unk_token } = read("tokenizer_config.json");
    expect([bos_token, eos_token, unk_token]).toEqual(["<s>", "</s>", "<unk>"]);
  });

  it.each(["model", "tokens", "scores", "token_type"])("are none without %s", async (missing) => {
    expect([...(await made(vocabulary.filter(({ key }) => !key.endsWith(missing)))).keys()]).toEqual([]);
  });

  it("are refused for a special token that does not exist", async () => {
    const bos = { key: "tokenizer.ggml.bos_token_id", type: "u32", value: 7 } as const;
    await expect(made([...vocabulary, bos])).rejects.toMatchObject({ code: "HEADER_INVALID" });
  });
});

interface AddedToken {
  readonly content: string;
  readonly special: boolean;
}

describe("what llama.cpp does otherwise", () => {
  const { model, ...steps } = jsonOf("tokenizer.json");
  const withJson = (changed: object) => filesWith({ "tokenizer.json": { model, ...steps, ...changed } });
  const metaspace = jsonOf("metaspace.json");
  const space = steps.normalizer.normalizers[1];

  it.each<[string, ReadonlyMap<string, Uint8Array>, readonly RegExp[]]>([
    ["the steps of Transformers 5", withJson(metaspace), [/puts a space before each text/]],
    [
      "words that are divided",
      withJson({
        ...metaspace,
        pre_tokenizer: { ...metaspace.pre_tokenizer, prepend_scheme: "never", split: true },
      }),
      [/does not normalise or divide/],
    ],
    ["another normalizer", withJson({ normalizer: { type: "NFKC" } }), [/does not normalise or divide/]],
    [
      "another text before each text",
      withJson({ normalizer: { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "x" }, space] } }),
      [/does not normalise or divide/],
    ],
    [
      "a merge that is missing",
      withJson({ model: { ...model, merges: model.merges.slice(1) } }),
      [/merges whatever gives a known token/],
    ],
    [
      "merges in an order that no scores have",
      withJson({ model: { ...model, merges: [...model.merges.slice(1), model.merges[0]] } }),
      [/merges whatever gives a known token/],
    ],
    [
      "a token that tokenizer.model lacks",
      withJson({ model: { ...model, vocab: { ...model.vocab, extra: 502 } } }),
      [/tokenizer.model has other tokens/],
    ],
    [
      "a tokenizer.model of other tokens",
      filesWith({ "tokenizer.model": renamed("▁the", "▁thy") }),
      [/tokenizer.model has other tokens/],
    ],
  ])("with %s is said", (_, files, says) => {
    const { keys, notes } = tokenizerKeys(files, ROWS);
    expect(keys[0]!.value).toBe("llama");
    expect(notes).toEqual(says.map((pattern) => expect.stringMatching(pattern)));
  });

  it("differs on the very texts of the note", () => {
    for (const { text, llama, metaspace } of texts) {
      const isNoted = text.startsWith(" ") || text.startsWith("▁") || /<\S+>./s.test(text);
      expect(JSON.stringify(llama) === JSON.stringify(metaspace), text).toBe(!isNoted);
    }
  });

  it.each<[string, ReadonlyMap<string, Uint8Array>, RegExp]>([
    ["no files", new Map(), /has no tokenizer.json, and no tokenizer.model/],
    [
      "a tokenizer.model of other software",
      filesWith({ "tokenizer.json": null, "tokenizer.model": new TextEncoder().encode("IQ== 0\n") }),
      /no tokenizer.model of SentencePiece/,
    ],
    ["Unigram", withJson({ model: { type: "Unigram", vocab: [] } }), /tokenizer is Unigram/],
    [
      "Unigram in tokenizer.model",
      filesWith({ "tokenizer.json": null, "tokenizer.model": unigram() }),
      /SentencePiece's unigram/,
    ],
    [
      "no token of a byte",
      filesWith({ "tokenizer.json": null, "tokenizer.model": renamed("<0x41>", "<0x4x>") }),
      /lacks tokens of single bytes/,
    ],
  ])("%s becomes a file without a tokenizer", (_, files, says) => {
    const { keys, notes } = tokenizerKeys(files, ROWS);
    expect(keys).toEqual([{ key: "tokenizer.ggml.model", type: "string", value: "none" }]);
    expect(notes).toEqual([expect.stringMatching(says)]);
  });

  it("more tokens than rows are refused", async () => {
    expect(() => tokenizerKeys(filesWith(), 501)).toThrow(/the token "<\|sep\|>" has the number 501/);
  });
});

/** tokenizer.model with another text of the same size in a piece. */
function renamed(piece: string, other: string): Uint8Array {
  const bytes = Buffer.from(bytesOf("tokenizer.model"));
  const at = bytes.indexOf(Buffer.concat([Buffer.from([Buffer.byteLength(piece)]), Buffer.from(piece)])) + 1;
  bytes.write(other, at);
  return new Uint8Array(bytes);
}

/** tokenizer.model with a trainer that says no kind, which is the default. */
function unigram(): Uint8Array {
  const { pieces } = readSentencePieceModel(bytesOf("tokenizer.model"), "m");
  const piece = (text: string) => [
    0x0a,
    Buffer.byteLength(text) + 2,
    0x0a,
    Buffer.byteLength(text),
    ...Buffer.from(text),
  ];
  return Uint8Array.from(pieces.flatMap(({ text }) => piece(text)));
}
