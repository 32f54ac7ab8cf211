/** Flags from `isologit.yaml`: read as on the command line, and never stronger than it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { run } from "../support/fake-library.ts";
import { start } from "../support/program.ts";
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

it("the environment wins over the file", async () => {
  const file = join(folder, "env.yaml");
  writeFileSync(file, "memory: 1GiB\n");
  const { calls } = await run(`inspect a --config ${file}`, { env: { ISOLOGIT_BACKEND: "wasm" } });
  expect(calls[0]!.options).toEqual({});
  const line = `verify a b --config ${file}`;
  expect((await run(line)).calls[0]!.options).toMatchObject({ memoryBytes: 2 ** 30 });
  const both = await run(line, { env: { ISOLOGIT_MEMORY: "256MiB" } });
  expect(both.calls[0]!.options).toMatchObject({ memoryBytes: 2 ** 28 });
});

it("what it sets is told, unless the command line asks for quiet", async () => {
  const { stderr } = await runWith("kl: 0.5\nverify: { tokens: 8 }", "verify a b");
  expect(stderr).toMatch(/^flags from .*\.yaml: --kl, --tokens$/m);
  expect((await runWith("kl: 0.5", "verify a b --quiet")).stderr).not.toContain("flags from");
  expect((await runWith("kl: 0.5\nquiet: true", "verify a b")).stderr).toContain("flags from");
});

it("a file that merely lies in the folder decides nobody's trust", async () => {
  const downloaded = mkdtempSync(join(folder, "downloaded-"));
  writeFileSync(join(downloaded, "isologit.yaml"), "verify: { public-key: key.pem }\n");
  const { status, stderr } = await start(["verify", "."], { cwd: downloaded }).ended;
  expect(status).toBe(2);
  expect(stderr).toContain("public-key is accepted from a file that --config names");
  const named = await runWith("verify: { public-key: key.pem }", "verify a");
  expect(named.calls[0]!.options).toMatchObject({ publicKey: "key.pem" });
});

it("lists and switches", async () => {
  const { calls } = await runWith("for: [vllm, sglang]\nread: true\nstrict: false\n", "check a");
  expect(calls[0]!.options).toMatchObject({ for: ["vllm", "sglang"], read: true, strict: false });
  const bare = await runWith("convert: { to: hf, calibrate: true }", "convert a b");
  expect(bare.calls[0]!.options).toMatchObject({ calibrate: true });
});

it("a flag is read as its command reads it: --hidden of prune is a number, and of logits a switch", async () => {
  const pruned = await runWith("prune: { hidden: 48 }", "prune a --dry-run");
  expect(pruned.calls.at(-1)).toMatchObject({ name: "prune", options: { hidden: 48 } });
  expect((await runWith("hidden: 48", "prune a --dry-run")).calls.at(-1)!.options).toMatchObject({
    hidden: 48,
  });
  expect((await runWith("hidden: true", "logits a")).calls[0]!.options).toMatchObject({ hidden: true });
  const refused = await runWith("prune: { hidden: true }", "prune a --dry-run");
  expect([refused.status, refused.calls]).toEqual([2, []]);
  expect(refused.stderr).toContain("expected a text or a number");
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
