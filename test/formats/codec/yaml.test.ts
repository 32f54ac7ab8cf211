import { describe, expect, it } from "vitest";
import { parseYaml, yamlText } from "../../../formats/codec/yaml.ts";
import { codeOf } from "../../support/errors.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("configs in YAML", () => {
  it("are read back as they were written", () => {
    const value = {
      pattern: "M-M*-",
      starred: "*-M",
      dash: "-",
      eps: 1e-5,
      small: 1e-7,
      negative: -2.5e-9,
      large: 1.5e21,
      none: null,
      word: "yes",
      numeral: "1e-7",
      octal: "0o17",
      nested: { _target_: "torch.bfloat16", _call_: false },
      list: [1, 2.5, "a"],
      big: 1e21,
    };
    expect(parseYaml(bytes(yamlText(value)), {})).toEqual(value);
  });

  it("spell numbers and words so that PyYAML takes them for what they are", () => {
    const text = yamlText({ d: 1e-7, c: 1e-5, a: "no", b: -1.5e-10, e: Number.POSITIVE_INFINITY, f: "1:30" });
    expect(text).toBe('a: "no"\nb: -1.5e-10\nc: 0.00001\nd: 1.0e-7\ne: .inf\nf: "1:30"\n');
  });

  it.each([
    ["a tag that names code", "a: !!python/object/apply:os.system [echo]", "CONFIG_INVALID"],
    ["a list", "- a", "CONFIG_INVALID"],
    ["nothing", "", "CONFIG_INVALID"],
    ["a key twice", "a: 1\na: 2", "CONFIG_INVALID"],
    ["an unclosed bracket", "a: [1", "CONFIG_INVALID"],
    ["endless nesting", `a: ${"[".repeat(200_000)}`, "CONFIG_INVALID"],
    ["a bomb of aliases", bomb(), "LIMIT_EXCEEDED"],
    ["megabytes", `a: ${"x".repeat(1024 * 1024)}`, "LIMIT_EXCEEDED"],
  ])("%s is refused", async (_, text, code) => {
    expect(await codeOf(() => parseYaml(bytes(text), {}))).toBe(code);
  });

  it("know no magic names", () => {
    const value = parseYaml(bytes("__proto__: {polluted: 1}\nconstructor: 2"), {});
    expect(Object.hasOwn(value, "__proto__")).toBe(true);
    expect({}).not.toHaveProperty("polluted");
  });
});

function bomb(): string {
  const lines = ["a0: &a0 [x]"];
  for (let i = 1; i < 10; i++)
    lines.push(
      `a${i}: &a${i} [${Array(10)
        .fill(`*a${i - 1}`)
        .join(",")}]`,
    );
  return lines.join("\n");
}
