/** Files with a SentencePiece tokenizer, home and away: ids as SentencePiece, Transformers and llama.cpp give them, who agree on every text. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeGgufHeader, type WrittenKey } from "../../formats/codec/gguf/encode.ts";
import { gguf } from "../../formats/gguf/format.ts";
import { tokenizerFiles } from "../../formats/gguf/tokenizer/files.ts";
import { tokenizerKeys } from "../../formats/gguf/tokenizer/keys.ts";
import { areAlike } from "../../formats/gguf/tokenizer/merges.ts";
import { hf } from "../../formats/hf/format.ts";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { fileStore } from "../../src/io/file.ts";
import { tokenizerOf } from "../../src/tokenizer/tokenizer.ts";
import { familyGolden, filesOf, workFolder } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";
import { filesWith, fixture, jsonOf, ROWS, texts } from "../support/sentencepiece.ts";

const work = workFolder();
const run = { verify: "off", threads: 1 } as const;

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

  it("merge by id where all scores are equal, as the converter writes them without a tokenizer.model", async () => {
    const { keys } = tokenizerKeys(filesWith(), ROWS);
    const equal = new Array<number>(ROWS).fill(-1000);
    const files = await made(
      keys.map((key) => (key.key.endsWith("scores") ? { ...key, value: equal } : key)),
    );
    const { merges } = JSON.parse(new TextDecoder().decode(files.get("tokenizer.json"))).model;
    const { model } = jsonOf("tokenizer.json");
    expect(areAlike(merges, model.merges, (text) => model.vocab[text])).toBe(true);
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
