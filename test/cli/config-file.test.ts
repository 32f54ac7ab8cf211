/** Flags from `isologit.yaml`: read as on the command line, and never stronger than it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { run } from "../support/fake-library.ts";
import { configSchema } from "./config-schema.ts";

const folder = mkdtempSync(join(tmpdir(), "isologit-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;

async function runWith(yaml: string, line: string) {
  const file = join(folder, `${count++}.yaml`);
  writeFileSync(file, yaml);
  return { file, ...(await run(`${line} --config ${file}`)) };
}

const FILE = `
memory: 512MiB
verify: bytes
strict: true
convert: { to: packed, kl: 0.5, exclude-nothing: no }
`;

it("flags are those of every command that has them, and of the command itself", async () => {
  const yaml = FILE.replace(", exclude-nothing: no", "");
  const converted = await runWith(yaml, "convert a b");
  expect(converted.calls[0]!.options).toMatchObject({
    to: "packed",
    kl: 0.5,
    verify: "bytes",
    memoryBytes: 2 ** 29,
    strict: true,
  });
  const inspected = await runWith(yaml, "inspect a");
  expect(inspected.calls[0]!.options).toEqual({});
});

it("the command line wins, then the command's own flags", async () => {
  const yaml = "kl: 0.1\nconvert: { kl: 0.2, to: hf }\n";
  expect((await runWith(yaml, "convert a b")).calls[0]!.options).toMatchObject({ kl: 0.2 });
  expect((await runWith(yaml, "convert a b --kl 0.3")).calls[0]!.options).toMatchObject({
    kl: 0.3,
    to: "hf",
  });
  expect((await runWith(yaml, "verify a b")).calls[0]!.options).toMatchObject({ kl: 0.1 });
});

it("lists and switches", async () => {
  const { calls } = await runWith("for: [vllm, sglang]\nread: true\nstrict: false\n", "check a");
  expect(calls[0]!.options).toMatchObject({ for: ["vllm", "sglang"], read: true, strict: false });
  const bare = await runWith("convert: { to: hf, calibrate: true }", "convert a b");
  expect(bare.calls[0]!.options).toMatchObject({ calibrate: true });
});

it.each([
  ["token: x", "token is accepted on the command line only"],
  ["overwrite: true", "overwrite is accepted on the command line only"],
  ["colour: red", "colour is no flag and no command"],
  ["convert: { chat: true }", "chat is not a flag of convert"],
  ["memory: 5", "expected a size with its unit"],
  ["strict: maybe", "expected true or false"],
  ["kl: [0.1]", "expected a text or a number"],
  ["- a", "it is not a map of flags"],
  ["a: b: c", "the file is not valid YAML"],
  ["a: &a [1]\nb: *a", "the file is not valid YAML"],
])("%s is refused", async (yaml, saying) => {
  const { file, status, stderr, calls } = await runWith(yaml, "convert a b.isologit");
  expect({ status, calls }).toEqual({ status: 2, calls: [] });
  expect(stderr).toContain(saying);
  expect(stderr).toContain(file);
});

it("a file that was named must exist", async () => {
  expect(await run("formats --config nowhere.yaml")).toMatchObject({ status: 4, calls: [] });
});

it("docs/isologit.schema.json describes every flag", async () => {
  const text = `${JSON.stringify(configSchema(), null, 2)}\n`;
  await expect(text).toMatchFileSnapshot("../../docs/isologit.schema.json");
});
