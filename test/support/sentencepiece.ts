/** The SentencePiece tokenizer of the fixture, and its files with changes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { tokenizerKeys } from "../../formats/gguf/tokenizer/keys.ts";
import { familyGolden } from "./goldens.ts";

/** Rows of the token table of the model: ids from 502 on have no token. */
export const ROWS = 512;
export const fixture = (name: string) =>
  new URL(`../../fixtures/sentencepiece/${name}`, import.meta.url).pathname;
export const bytesOf = (name: string) => new Uint8Array(readFileSync(fixture(name)));
export const jsonOf = (name: string) => JSON.parse(readFileSync(fixture(name), "utf8"));

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
export const { texts }: Expected = jsonOf("expected.json");

/** The files of a tokenizer, some of them changed or left out, and the config of the model. */
export function filesWith(changed: Readonly<Record<string, object | Uint8Array | null>> = {}) {
  const names = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"];
  const files = new Map<string, Uint8Array>(names.map((name) => [name, bytesOf(name)]));
  files.set("config.json", new Uint8Array(readFileSync(join(familyGolden("llama"), "config.json"))));
  for (const [path, value] of Object.entries(changed))
    if (value === null) files.delete(path);
    else
      files.set(path, value instanceof Uint8Array ? value : new TextEncoder().encode(JSON.stringify(value)));
  return files;
}

/** The values of the keys, by the last part of their names. */
export const valuesOf = (files: ReadonlyMap<string, Uint8Array>) =>
  Object.fromEntries(tokenizerKeys(files, ROWS).keys.map(({ key, value }) => [key.split(".").at(-1), value]));
