import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseJson, parseJsonObject, stringifyJson } from "../../src/core/json.ts";

const fixture = (path: string) => readFileSync(new URL(`../../fixtures/nemotron-h/${path}`, import.meta.url));
const coded = (code: string) => expect.objectContaining({ code });

describe("a key said twice is refused", () => {
  it.each([
    '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}',
    '{"x":[{"b":{}, "c":"}", "b":1}]}',
    '{"__proto__":1,"__proto__":2}',
    '{"a" : 1, "b":[{"a":1}], "a"\n: 2}',
  ])("%s", (text) => expect(() => parseJson(text)).toThrow(coded("DUPLICATE_NAME")));

  it.each([
    '{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
    '{"a":"b","b":"a"}',
    '{"a":"{\\"a\\":1,\\"a\\":2}"}',
    '["a","a"]',
    '{"a\\\\":1,"a":2}',
    '{"a\\"":1,"a":2}',
  ])("%s is no such text", (text) => expect(parseJson(text)).toEqual(JSON.parse(text)));
});

it("depth is limited, inside strings it is not depth", () => {
  expect(parseJson("[".repeat(64) + "]".repeat(64))).toBeInstanceOf(Array);
  expect(() => parseJson("[".repeat(65) + "]".repeat(65))).toThrow(coded("LIMIT_EXCEEDED"));
  expect(() => parseJson("[".repeat(1e6))).toThrow(coded("LIMIT_EXCEEDED"));
  expect(parseJson(`"${"[".repeat(1e6)}"`)).toHaveLength(1e6);
});

it("a prototype cannot be planted", () => {
  const value = parseJsonObject('{"__proto__":{"evil":[Infinity]},"a":{"__proto__":NaN}}', {
    nonFinite: true,
  });
  expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
  expect(Object.keys(value)).toEqual(["__proto__", "a"]);
  expect((value as { evil?: unknown }).evil).toBeUndefined();
  expect(stringifyJson(value, 0).replace(/\s/g, "")).toBe(
    '{"__proto__":{"evil":[Infinity]},"a":{"__proto__":NaN}}',
  );
});

describe("numbers that are not finite", () => {
  const read = (text: string) => parseJson(text, { nonFinite: true });
  it.each([
    ["[0.0, Infinity]", [0, Infinity]],
    ["[-Infinity,NaN,-1]", [-Infinity, NaN, -1]],
    ['{"a":"Infinity, NaN","NaN":"-Infinity"}', { a: "Infinity, NaN", NaN: "-Infinity" }],
    ['[0.0, {"__float__": "Infinity"}]', [0, Infinity]],
    ['{"__float__": "-Infinity"}', -Infinity],
    ['{"__float__": "1e30"}', { __float__: "1e30" }],
    ['{"__float__": "NaN", "b": 1}', { __float__: "NaN", b: 1 }],
    ["Infinity", Infinity],
  ])("%s", (text, value) => expect(read(text)).toEqual(value));

  it.each([
    "Inf",
    "infinity",
    "InfinityX",
    "1Infinity",
    "-NaN",
    "+Infinity",
    "{Infinity:1}",
    "[NaN Infinity]",
  ])("%s is refused", (text) => expect(() => read(text)).toThrow(coded("CONFIG_INVALID")));

  it("are refused where nobody asked for them", () => {
    expect(() => parseJson("[Infinity]")).toThrow(coded("CONFIG_INVALID"));
    expect(parseJson('{"__float__":"NaN"}')).toEqual({ __float__: "NaN" });
  });
});

it("digits only, where asked", () => {
  const read = (text: string) => parseJson(text, { digitsOnly: true, code: "HEADER_INVALID" });
  expect(read('[1, 20, true, false, null, "-1.5e3"]')).toEqual([1, 20, true, false, null, "-1.5e3"]);
  for (const text of ["[1.0]", "[1e3]", "[2E3]", "[-1]", "[-0]"]) {
    expect(() => read(text), text).toThrow(coded("HEADER_INVALID"));
  }
});

it("a byte order mark is refused by that name", () => {
  for (const source of ["\ufeff{}", new TextEncoder().encode("\ufeff{}")]) {
    const said = {
      code: "CONFIG_INVALID",
      message: expect.stringContaining("byte order mark"),
      next: expect.stringContaining("without"),
    };
    expect(() => parseJson(source)).toThrow(expect.objectContaining(said));
  }
});

it("bytes that are not UTF-8, a byte order mark and other damage have the caller's code and file", () => {
  const options = { code: "HEADER_INVALID", file: "f" } as const;
  const bad = [
    Uint8Array.of(0x22, 0xff, 0x22),
    new TextEncoder().encode("\ufeff{}"),
    "{",
    "",
    '"\\',
    "[1,]",
    '"',
  ];
  for (const source of bad) {
    expect(() => parseJson(source, options)).toThrow(
      expect.objectContaining({ code: "HEADER_INVALID", at: { file: "f" } }),
    );
  }
  expect(() => parseJsonObject("[]", options)).toThrow(coded("HEADER_INVALID"));
});

it("any text is a value or an error of ours", () => {
  const parts = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"',
    "\\",
    "\\u00",
    "a",
    "1",
    "-",
    ".",
    "e",
    "NaN",
    "Infinity",
    " ",
  ];
  let seed = 1;
  const next = (n: number) => {
    seed = (seed * 48271) % 0x7fffffff;
    return seed % n;
  };
  for (let i = 0; i < 20_000; i++) {
    const text = Array.from({ length: next(12) }, () => parts[next(parts.length)]).join("");
    try {
      const value = parseJson(text);
      expect(value).toEqual(JSON.parse(text));
    } catch (error) {
      expect((error as Error).name, text).toBe("IsologitError");
    }
  }
});

describe("text is written as Python writes it", () => {
  it.each([
    [1e-5, "1e-05"],
    [1.5e-7, "1.5e-07"],
    [0.0001, "0.0001"],
    [1e-100, "1e-100"],
    [1e16, "1e+16"],
    [123456789012345, "123456789012345"],
    [-0.5, "-0.5"],
    [-Infinity, "-Infinity"],
    [NaN, "NaN"],
    ["é😀\u007f\n\u2028", '"\\u00e9\\ud83d\\ude00\u007f\\n\\u2028"'],
    [[], "[]"],
    [{}, "{}"],
    [{ a: [1, {}], b: null }, '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": null\n}'],
  ])("%j", (value, text) => expect(stringifyJson(value)).toBe(text));

  it("an index of real software comes back byte for byte", () => {
    const text = fixture("sharded/model.safetensors.index.json").toString();
    expect(`${stringifyJson(parseJson(text))}\n`).toBe(text);
  });

  it.each(["tiny", "tiny-t5", "sharded", "moe", "latent-moe"])(
    "and the config of %s, but for 1.0",
    (name) => {
      const text = fixture(`${name}/config.json`).toString();
      const again = stringifyJson(parseJson(text, { nonFinite: !name.endsWith("t5") }));
      expect(again).toBe(text.trimEnd().replace(/(: |^ +)(\d+)\.0(?=,?$)/gm, "$1$2"));
    },
  );
});
