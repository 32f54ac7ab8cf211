/** Special tokens from the files that tokenizers are saved in, in all their forms. */
import { expect, it } from "vitest";
import type { Json } from "../../src/core/json.ts";
import { specialIds } from "../../src/tokenizer/special-tokens.ts";

const idsIn = (files: Readonly<Record<string, Json>>) =>
  specialIds(async (path) => (path in files ? new TextEncoder().encode(JSON.stringify(files[path])) : null));

const BPE = { added_tokens: [{ id: 2, content: "</s>" }], model: { vocab: { "</s>": 9, "<s>": 1 } } };

it.each<[string, Readonly<Record<string, Json>>, object]>([
  [
    "texts, with ids of added tokens before those of the vocabulary",
    { "tokenizer_config.json": { bos_token: "<s>", eos_token: "</s>" }, "tokenizer.json": BPE },
    { bos: 1, eos: 2 },
  ],
  [
    "records, with ids beside them",
    {
      "tokenizer_config.json": {
        eos_token: { content: "<|end|>", lstrip: false },
        pad_token: null,
        added_tokens_decoder: { "11": { content: "<|end|>" } },
      },
    },
    { eos: 11 },
  ],
  [
    "the map of older releases",
    { "special_tokens_map.json": { eos_token: "</s>" }, "tokenizer.json": BPE },
    { eos: 2 },
  ],
  [
    "a vocabulary with scores",
    {
      "tokenizer_config.json": { eos_token: "b", pad_token: "a" },
      "tokenizer.json": {
        model: {
          vocab: [
            ["a", -1],
            ["b", -2],
          ],
        },
      },
    },
    { eos: 1, pad: 0 },
  ],
  [
    "a token that no file gives an id",
    { "tokenizer_config.json": { eos_token: "?" }, "tokenizer.json": BPE },
    {},
  ],
  [
    "a name that every object has",
    { "tokenizer_config.json": { eos_token: "toString" }, "tokenizer.json": BPE },
    {},
  ],
  ["no files", {}, {}],
])("%s", async (_, files, ids) => {
  expect(await idsIn(files)).toEqual(ids);
});

it("a file that is not JSON is named", async () => {
  const asked = specialIds(async (path) => (path === "tokenizer_config.json" ? Uint8Array.of(0x7b) : null));
  await expect(asked).rejects.toMatchObject({
    code: "CONFIG_INVALID",
    at: { file: "tokenizer_config.json" },
  });
});
