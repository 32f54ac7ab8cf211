/** The keys of a SentencePiece tokenizer: those of llama.cpp's own converter, and what is said where llama.cpp does otherwise. */
import { describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { tokenizerKeys } from "../../formats/gguf/tokenizer/keys.ts";
import { readSentencePieceModel } from "../../formats/gguf/tokenizer/model-file.ts";
import type { TypedValue } from "../../src/core/checkpoint.ts";
import { readRange } from "../../src/core/io.ts";
import { fileStore } from "../../src/io/file.ts";
import { bytesOf, filesWith, fixture, jsonOf, ROWS, texts, valuesOf } from "../support/sentencepiece.ts";

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
