import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { compressedTensors } from "../../src/quantization/compressed-tensors.ts";
import { withDtype, withoutQuantization, withQuantization } from "../../src/quantization/config-text.ts";
import { memberText, withMember, withoutMember } from "../../src/quantization/json-edit.ts";
import { QUANTIZED } from "../support/quantized.ts";

const folder = new URL("../../fixtures/nemotron-h/", import.meta.url);
const inFolders = readdirSync(folder).filter((name) => existsSync(new URL(`${name}/config.json`, folder)));
const configs = inFolders.map((name) => [
  name,
  readFileSync(new URL(`${name}/config.json`, folder), "utf8"),
]) as readonly [string, string][];
const published = readFileSync(new URL("sharded/config.json", folder), "utf8");
const { config } = compressedTensors.describe({
  ...QUANTIZED,
  cast: ["a.up_proj.weight"],
  kept: ["lm_head.weight", "a.q_proj.weight"],
});

/** Python's JSON, which has a bare Infinity. */
const parse = (text: string) => JSON.parse(text.replace(/\bInfinity\b/g, "1e999"));

describe("real config.json texts", () => {
  it.each(configs)("%s: added, the rest untouched; removed, the very same text", (_, text) => {
    const quantised = withQuantization(text, config);
    const at = quantised.indexOf(',\n  "quantization_config"');
    expect(quantised.slice(0, at)).toBe(text.slice(0, at));
    expect(quantised.endsWith(text.slice(at))).toBe(true);
    expect(parse(quantised)).toEqual({ ...parse(text), quantization_config: config });
    expect(withoutQuantization(quantised)).toBe(text);
  });

  it("keeps the bare Infinity and the number spellings of the published 8B config", () => {
    const text = withDtype(withQuantization(published, config), "float16");
    expect(text).toContain("    0.0,\n    Infinity\n  ],");
    expect(text).toContain('"layer_norm_epsilon": 1e-05,');
    expect(text).toContain('"torch_dtype": "float16",');
    expect(text.split("\n")).toHaveLength(
      published.split("\n").length + JSON.stringify(config, null, 2).split("\n").length,
    );
    expect(withDtype(withoutQuantization(text), "bfloat16")).toBe(published);
  });

  it("is printed as the rest of the file is", () => {
    expect(withQuantization(published, { a: [1], b: {} }).slice(-102)).toContain(
      '"vocab_size": 512,\n  "quantization_config": {\n    "a": [\n      1\n    ],\n    "b": {}\n  }\n}\n',
    );
  });
});

describe("any JSON object", () => {
  const texts = [
    "{}",
    "{ }\n",
    '{"a":1}',
    '{"a": "q} \\" {,", "b": [1, {"c": "]"}]}',
    '{\n\t"a": {"k": 1},\n\t"b": NaN\n}\n',
    '{\r\n    "a": -1e-5,\r\n    "b": -Infinity\r\n}',
    '\n{\n"a":\n1\n}\n\n',
    '{"k\\u0065y": 0, "": "\\\\"}',
  ];

  it.each(texts)("%j gains, changes and loses a key", (text) => {
    const value = { x: [true, null], y: "{" };
    const added = withMember(text, "new", value);
    expect(parse(added.replace("NaN", "0"))).toEqual({ ...parse(text.replace("NaN", "0")), new: value });
    if (text.replace(/\s/g, "") !== "{}") expect(withoutMember(added, "new")).toBe(text);
    const changed = withMember(added, "new", 7);
    expect(memberText(changed, "new")).toBe("7");
    expect(withMember(changed, "new", value)).toBe(added);
    expect(withoutMember(text, "absent")).toBe(text);
  });

  it("loses its first, middle, last or only key", () => {
    const text = '{\n  "a": 1,\n  "b": [2],\n  "c": "3"\n}\n';
    expect(withoutMember(text, "a")).toBe('{\n  "b": [2],\n  "c": "3"\n}\n');
    expect(withoutMember(text, "b")).toBe('{\n  "a": 1,\n  "c": "3"\n}\n');
    expect(withoutMember(text, "c")).toBe('{\n  "a": 1,\n  "b": [2]\n}\n');
    expect(withoutMember('{"a": 1}', "a")).toBe("{}");
  });

  it("sees the outermost keys only, however they are escaped", () => {
    expect(memberText('{"x": {"key": 1}, "s": "\\"key\\": 2", "k\\u0065y": 3}', "key")).toBe("3");
    expect(memberText('{"x": {"key": 1}}', "key")).toBeUndefined();
  });

  it("is done with a large text in linear time", () => {
    const long = JSON.stringify({ a: "\\".repeat(2_000_000), b: Array(100_000).fill({ c: [] }) });
    expect(memberText(withMember(long, "d", 1), "d")).toBe("1");
  });

  it.each([
    ["", "not a JSON object"],
    ["[1]", "not a JSON object"],
    ["{", "a key was expected at character 1"],
    ['{"a"}', "a key was expected"],
    ['{"a": }', "a value was expected at character 6"],
    ['{"a": "open}', "a value was expected at character 6"],
    ['{"a": [1, "open]', "the bracket at character 6 is never closed"],
    ['{"a": [1}', "a comma was expected at character 9"],
    ['{"a": 1,}', "a key was expected at character 8"],
    ['{"a": 1 "b": 2}', "a comma was expected"],
    ['{"a": 1} x', "the text continues after the end"],
    ['{"a": 1', "a comma was expected"],
    ['{"\\x": 1}', "not a JSON string"],
    ['{"a": 1, "\\u0061": 2}', "twice"],
  ])("%j is refused", (text, message) => {
    expect(() => withMember(text, "a", 1)).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID", message: expect.stringMatching(message) }),
    );
  });
});
