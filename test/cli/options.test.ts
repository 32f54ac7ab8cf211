/** Each command's words to the one call it makes. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { run } from "../support/fake-library.ts";

const folder = mkdtempSync(join(tmpdir(), "isologit-cli-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("one command is one call, with the options that were given and no others", () => {
  const all =
    "--dtype fp8-e4m3 --recipe all-linear --keep-ends 3 --quant-dialect compressed-tensors --allow-overflow " +
    "--max-shard-size 5GB --align 4096 --memory 512MiB --threads 2 --backend wasm --verify bytes --tokens 16 " +
    "--seed 7 --ids 1,2 --kl 0.5 --top1 0.9 --resume --overwrite --plan p.json";
  const told = {
    dtype: "fp8-e4m3",
    recipe: "all-linear",
    keepEnds: 3,
    quantDialect: "compressed-tensors",
    allowOverflow: true,
    maxShardBytes: 5e9,
    alignment: 4096,
    memoryBytes: 2 ** 29,
    threads: 2,
    backend: "wasm",
    verify: "bytes",
    tokens: 16,
    seed: 7,
    ids: [1, 2],
    kl: 0.5,
    top1: 0.9,
    resume: true,
    overwrite: true,
    planFile: "p.json",
  };
  it.each<[string, string, unknown[], object]>([
    ["convert a b --to hf", "convert", ["a", "b"], { to: "hf" }],
    ["convert a b.isologit", "convert", ["a", "b.isologit"], { to: "packed" }],
    ["convert a b.isologit/ --to hf", "convert", ["a", "b.isologit/"], { to: "hf" }],
    ["convert a b --plan p.json", "convert", ["a", "b"], { planFile: "p.json" }],
    [`convert a b --to packed ${all}`, "convert", ["a", "b"], { to: "packed", ...told }],
    ["recast a b --dtype bf16", "recast", ["a", "b"], { dtype: "bf16" }],
    [`recast a b ${all}`, "recast", ["a", "b"], told],
    ["verify a b", "verify", ["a", "b"], {}],
    [
      "verify a --certificate c --public-key k --verify bytes",
      "verify",
      ["a", undefined],
      { certificate: "c", publicKey: "k", verify: "bytes" },
    ],
    [
      "verify a b --prompt Hello --reference r --tolerance t",
      "verify",
      ["a", "b"],
      { prompt: "Hello", reference: "r", tolerance: "t" },
    ],
    [
      "verify a --bundle b --trusted-root t --sigstore-identity i --sigstore-issuer s",
      "verify",
      ["a", undefined],
      { bundle: "b", trustedRoot: "t", sigstoreIdentity: "i", sigstoreIssuer: "s" },
    ],
    [
      "convert a b --to hf --sign key.pem --bundle b.sig",
      "convert",
      ["a", "b"],
      { to: "hf", sign: "key.pem", bundle: "b.sig" },
    ],
    [
      "verify a b --verify bytes --kl 0.1 --top1 1 --ids 5 --threads 1",
      "verify",
      ["a", "b"],
      { verify: "bytes", kl: 0.1, top1: 1, ids: [5], threads: 1 },
    ],
    ["plan a b.isologit", "plan", ["a", "b.isologit"], { to: "packed" }],
    [
      "plan a b --dtype f16 --allow-overflow --memory 1GB",
      "plan",
      ["a", "b"],
      { dtype: "f16", allowOverflow: true, memoryBytes: 1e9 },
    ],
    ["logits a", "logits", ["a"], { out: "logits.safetensors" }],
    [
      "logits a --out x --hidden --overwrite --tokens 3",
      "logits",
      ["a"],
      { out: "x", hidden: true, overwrite: true, tokens: 3 },
    ],
    ["logits a --top-k 8 --ids 4", "logits", ["a"], { out: "logits.safetensors", topK: 8, ids: [4] }],
    ["importance a", "importance", ["a"], { out: "importance.safetensors" }],
    [
      "importance a --cheap --out s --memory 2GiB --tokens 8",
      "importance",
      ["a"],
      { out: "s", cheap: true, memoryBytes: 2 ** 31, tokens: 8 },
    ],
    [
      "generate a --ids 1,2 --json --tokens 8 --chat --temperature 0.5 --top-k 4 --top-p 0.9 --seed 3 --ignore-eos",
      "generate",
      ["a"],
      {
        ...{ ids: [1, 2], tokens: 8, chat: true, temperature: 0.5, topK: 4, topP: 0.9, seed: 3 },
        ignoreEos: true,
      },
    ],
    ["inspect a", "inspect", ["a"], {}],
    ["inspect a --tensors --verbose", "inspect", ["a"], { tensors: true }],
    ["check a --read", "check", ["a"], { read: true }],
    ["check a", "check", ["a"], {}],
    ["scan a", "scan", ["a"], {}],
    ["diff a b --threads 2 --memory 1GiB", "diff", ["a", "b"], { threads: 2, memoryBytes: 2 ** 30 }],
    ["scan a --keep-going", "scan", ["a"], { keepGoing: true }],
    ["doctor", "doctor", [], {}],
    [
      "doctor --kernels --threads 2 --backend auto",
      "doctor",
      [],
      { kernels: true, threads: 2, backend: "auto" },
    ],
  ])("%s", async (line, name, args, options) => {
    const { calls, stderr } = await run(line);
    expect(stderr).toBe("");
    expect(calls).toEqual([{ name, args, options }]);
  });

  it("formats asks for nothing else", async () => {
    expect((await run("formats --json")).json().backends).toEqual(["wasm"]);
  });
});

describe("ids from a file", () => {
  it("are read before the library is called", async () => {
    const file = join(folder, "ids.txt");
    writeFileSync(file, "[3, 1,\n 2]\n");
    const { calls } = await run(["logits", "a", "--ids-file", file]);
    expect(calls[0]?.options.ids).toEqual([3, 1, 2]);
  });

  it("as a list of lists are several prompts, for the commands that run several", async () => {
    const file = join(folder, "prompts.json");
    writeFileSync(file, " [[3, 1,\n 2],[4]\n, [5,6]]\n");
    for (const command of ["importance", "logits"]) {
      const { calls } = await run([command, "a", "--ids-file", file]);
      expect(calls[0]?.options.prompts).toEqual([[3, 1, 2], [4], [5, 6]]);
      expect(calls[0]?.options).not.toHaveProperty("ids");
    }
    const { status, stderr, calls } = await run(["generate", "a", "--ids-file", file]);
    expect([status, calls]).toEqual([2, []]);
    expect(stderr).toContain("holds 3 prompts, and generate runs one");
    writeFileSync(file, "[[3, 1, 2]]");
    const { calls: one } = await run(["generate", "a", "--ids-file", file]);
    expect(one[0]?.options.ids).toEqual([3, 1, 2]);
  });

  it.each(["[[1, 2], [3,]]", "[[1], 2]", "[[1] [2]]", "[[1], [-2]]", "[[1], []]", "[[[1]]]", "[[1], [2]"])(
    "as a list of lists with a mistake are refused: %s",
    async (text) => {
      const file = join(folder, "mistake.json");
      writeFileSync(file, text);
      const { status, json } = await run(["importance", "a", "--json", "--ids-file", file]);
      expect([status, json().error.code, json().error.at.file]).toEqual([2, "USAGE", file]);
    },
  );

  it("name the file when it is missing, or holds something else", async () => {
    for (const bytes of [2 ** 30, 2 ** 32]) {
      const weights = join(folder, "weights");
      writeFileSync(weights, "");
      truncateSync(weights, bytes);
      const large = await run(["logits", "a", "--json", "--ids-file", weights]);
      expect(large.json().error).toMatchObject({ code: "LIMIT_EXCEEDED", at: { file: weights } });
      rmSync(weights);
    }
    const missing = await run(["logits", "a", "--json", "--ids-file", join(folder, "none")]);
    expect(missing.status).toBe(4);
    expect(missing.json().error).toMatchObject({ code: "NOT_FOUND", at: { file: join(folder, "none") } });
    const file = join(folder, "words.txt");
    writeFileSync(file, "1 two 3");
    const words = await run(["logits", "a", "--json", "--ids-file", file]);
    expect(words.status).toBe(2);
    expect(words.json().error).toMatchObject({ code: "USAGE", at: { file } });
  });

  it("do not mix with --ids", async () => {
    expect((await run("logits a --ids 1 --ids-file x")).status).toBe(2);
  });
});

describe("the environment", () => {
  const env = { ISOLOGIT_BACKEND: "wasm", ISOLOGIT_MEMORY: "256MiB" };

  it("says what flags do not", async () => {
    const { calls } = await run("verify a b", { env });
    expect(calls[0]?.options).toEqual({ backend: "wasm", memoryBytes: 2 ** 28 });
    const flagged = await run("verify a b --memory 1GiB --backend auto", { env });
    expect(flagged.calls[0]?.options).toEqual({ backend: "auto", memoryBytes: 2 ** 30 });
    const diff = await run("diff a b", { env });
    expect(diff.calls[0]?.options).toEqual({ memoryBytes: 2 ** 28 });
    const gpu = await run("verify a b --device H100", { env: { ISOLOGIT_BACKEND: "webgpu" } });
    expect(gpu.calls[0]?.options).toEqual({ backend: "webgpu", device: "H100" });
  });

  it("is unset where empty, and refused by its own name where wrong", async () => {
    const empty = await run("verify a b", { env: { ISOLOGIT_BACKEND: "", ISOLOGIT_MEMORY: "" } });
    expect(empty.calls[0]?.options).toEqual({});
    const wrong = await run("verify a b", { env: { ISOLOGIT_MEMORY: "lots" } });
    expect([wrong.status, wrong.calls.length]).toEqual([2, 0]);
    expect(wrong.stderr).toContain('ISOLOGIT_MEMORY is "lots", expected a size');
    const cuda = await run("doctor", { env: { ISOLOGIT_BACKEND: "cuda" } });
    expect(cuda.stderr).toContain('ISOLOGIT_BACKEND is "cuda", expected one of auto, webgpu, wasm');
  });

  it("does not reach commands that do no such work", async () => {
    expect((await run("formats", { env: { ISOLOGIT_MEMORY: "lots" } })).status).toBe(0);
  });
});
