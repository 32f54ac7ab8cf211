/** `hf://` as a source of the library's functions: what is asked of the Hub, and what is kept. */
import { mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { scan } from "../../src/api/scan.ts";
import { verify } from "../../src/api/verify.ts";
import { ggufBytes, strings } from "../support/gguf.ts";
import { filesOf, ggufGolden, golden, workFolder } from "../support/goldens.ts";
import { put } from "../support/hub/fake.ts";
import { putFolder, world } from "../support/hub/world.ts";

const work = workFolder();
const here = world(work);
const REPO = "nvidia/sharded";
const source = golden("sharded");

beforeEach(() => {
  Object.assign(process.env, here.env);
  delete process.env.HF_HUB_OFFLINE;
  here.hub.repositories.clear();
  putFolder(here.hub, REPO, source);
});

const asked = (pattern: RegExp) =>
  here.hub.seen.filter(({ method, url, server }) => pattern.test(`${server} ${method} ${url}`));
const weightBytes = () => asked(/^storage GET \/objects/).reduce((sum, { bytes }) => sum + bytes, 0);

/** Bytes of a shard before its first tensor, and the eight that tell how many, which are read first. */
function headerBytes(path: string): number {
  return 16 + Number(readFileSync(join(source, path)).readBigUInt64LE(0));
}
const SHARDS = [...filesOf(source).keys()].filter((path) => /^model-.*safetensors$/.test(path));
/** What no index names is looked at too: it may be another set of weights. */
const WITH_HEADERS = [...SHARDS, "reference.safetensors"];

describe("reads headers and nothing else", () => {
  it.each(["inspect", "plan"])("%s", async (command) => {
    const address = `hf://${REPO}`;
    const from = (at: string): Promise<object> =>
      command === "inspect" ? inspect(at, { tensors: true }) : plan(at, join(work, "x.isologit"));
    const ours = await from(address);
    expect(weightBytes()).toBe(WITH_HEADERS.reduce((sum, path) => sum + headerBytes(path), 0));
    expect(ours).toEqual({
      ...(await from(source)),
      ...(command === "plan" && {
        source: expect.objectContaining({ address }),
        run: expect.objectContaining({
          source: expect.stringMatching(/^hf:\/\/nvidia\/[^@]+@[0-9a-f]{40}$/),
          stamps: [],
        }),
      }),
    });
  });
});

it("parts of a GGUF, and one file among several, are read by their headers", async () => {
  const [split, single] = [ggufGolden("tiny-split"), ggufGolden("tiny-q8_0.gguf")];
  here.hub.repositories.clear();
  putFolder(here.hub, REPO, split);
  expect(await inspect(`hf://${REPO}`)).toEqual(await inspect(split));
  expect(weightBytes(), "the first bytes of one file, and one window of each").toBe(4 + 3 * 64 * 1024);
  put(here.hub, REPO, { "q8.gguf": readFileSync(single) });
  const { gguf } = await inspect(`hf://${REPO}/q8.gguf`);
  expect(gguf).toMatchObject({ fileType: "Q8_0", parts: [{ file: "q8.gguf", tensors: 58 }] });
  await expect(inspect(`hf://${REPO}`)).rejects.toMatchObject({ code: "FORMAT_AMBIGUOUS" });
});

it("a GGUF with the vocabulary of a large model is opened by two reads, and few of its weights are fetched", async () => {
  const tokens = Array.from({ length: 300_000 }, (_, i) => String(i).padStart(9, "t"));
  const keys = [["tokenizer.ggml.tokens", "raw", strings(tokens)] as const];
  const tensor = { name: "a.weight", dims: [32, 900_000], type: 8, bytes: 34 * 900_000 };
  put(here.hub, "org/large", { "large.gguf": ggufBytes({ keys, tensors: [tensor] }) });
  here.hub.seen.length = 0;
  expect((await inspect("hf://org/large/large.gguf")).gguf!.tokenizer.tokens).toBe(tokens.length);
  const sizes = asked(/^storage GET \/objects/).map(({ bytes }) => bytes);
  const looks = [4, 5, 8]; // of GGUF and of other formats that a single file may have, all at one time
  const windows = [64 * 1024, 8 * 1024 * 1024];
  expect(sizes).toEqual(expect.arrayContaining([...looks, ...windows]));
  const ahead = 8 * 1024 * 1024; // asked for, because the second read begins where the first ends
  expect(weightBytes()).toBeLessThanOrEqual([...looks, ...windows].reduce((sum, size) => sum + size, ahead));
});

it("a GGUF converts from the Hub, in one file and in parts, into the bytes of the local ones", async () => {
  here.hub.repositories.clear();
  putFolder(here.hub, REPO, ggufGolden("tiny-split"));
  put(here.hub, "org/one", { "q8.gguf": readFileSync(ggufGolden("tiny-q8_0.gguf")) });
  const options = { to: "hf", dtype: "bf16", verify: "bytes", threads: 1 } as const;
  for (const [address, local] of [
    [`hf://${REPO}`, "tiny-split"],
    ["hf://org/one/q8.gguf", "tiny-q8_0.gguf"],
  ] as const) {
    const [remote, wanted] = [mkdtempSync(join(work, "remote-")), mkdtempSync(join(work, "local-"))];
    const { source, verification } = await convert(address, join(remote, "out"), options);
    await convert(ggufGolden(local), join(wanted, "out"), options);
    expect([source.format, verification!.verdict]).toEqual(["gguf", "within"]);
    const weights = (folder: string) => filesOf(join(folder, "out")).get("model.safetensors");
    expect(weights(remote)).toBe(weights(wanted));
    expect(weights(remote)).toMatch(/^[0-9a-f]{64}$/);
  }
  const [own, back] = [join(work, "own.gguf"), join(work, "own back")];
  await convert(golden("tiny"), own, { verify: "off" });
  put(here.hub, "org/own", { "own.gguf": readFileSync(own) });
  await convert("hf://org/own", back, { to: "hf", verify: "off" });
  expect(filesOf(back)).toEqual(filesOf(golden("tiny"))); // the files that were carried in keys, too
});

it("a commit stays the same after later commits", async () => {
  const first = here.hub.repositories.get(REPO)!.refs.get("main")!;
  put(here.hub, REPO, { "config.json": Buffer.from("{}") });
  await expect(inspect(`hf://${REPO}@${first}`)).resolves.toMatchObject({ family: "nemotron-h" });
  await expect(inspect(`hf://${REPO}`)).resolves.toMatchObject({ family: null });
});

it("a folder, and a single file, of a repository", async () => {
  const files = Object.fromEntries(
    [...filesOf(source).keys()].map((path) => [`models/a/${path}`, readFileSync(join(source, path))]),
  );
  put(here.hub, "nvidia/deep", { ...files, "README.md": Buffer.from("# no\n") });
  await expect(inspect("hf://nvidia/deep/models/a")).resolves.toEqual(await inspect(source));
  await expect(inspect(`hf://nvidia/deep/models/a/${SHARDS[0]}`)).resolves.toMatchObject({
    format: "hf",
    family: null,
  });
  await expect(inspect("hf://nvidia/deep/models/b")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

it("diff finds on the Hub what it finds on disk", async () => {
  const other = golden("tiny");
  expect(await diff(`hf://${REPO}`, source)).toMatchObject({ equal: true, config: [], sidecars: [] });
  expect(await diff(`hf://${REPO}`, other)).toEqual(await diff(source, other));
});

it("scan finds on the Hub what it finds on disk, and reads no weight", async () => {
  const hostile = new URL("../../fixtures/hostile/pickles", import.meta.url).pathname;
  putFolder(here.hub, "nvidia/traps", hostile);
  const [there, local] = [
    await scan("hf://nvidia/traps", { keepGoing: true }),
    await scan(hostile, { keepGoing: true }),
  ];
  expect(there).toEqual(local);
  expect(there.ok).toBe(false);
  here.hub.seen.length = 0;
  expect(await scan(`hf://${REPO}`)).toEqual(await scan(source));
  for (const { bytes } of asked(/^storage GET \/objects/)) expect(bytes).toBeLessThanOrEqual(512);
});

describe("convert and verify download each byte once, into the cache", () => {
  it("convert, verified by bytes, then again offline", async () => {
    const folder = mkdtempSync(join(work, "out-"));
    const report = await convert(`hf://${REPO}`, join(folder, "hub"), { to: "hf", verify: "bytes" });
    expect(report.verification?.verdict).toBe("same");
    await convert(source, join(folder, "disk"), { to: "hf", verify: "bytes" });
    expect(filesOf(join(folder, "hub"))).toEqual(filesOf(join(folder, "disk")));
    const headers = WITH_HEADERS.reduce((sum, path) => sum + headerBytes(path), 0);
    const whole = WITH_HEADERS.reduce((sum, path) => sum + readFileSync(join(source, path)).byteLength, 0);
    expect(weightBytes()).toBe(whole + headers);

    here.hub.seen.length = 0;
    process.env.HF_HUB_OFFLINE = "1";
    const again = await verify(`hf://${REPO}`, join(folder, "hub"), { verify: "bytes" });
    expect([again.verdict, here.hub.seen.length]).toEqual(["same", 0]);
  });
});

describe("refusals", () => {
  it.each([
    ["hf://nvidia/none", "NOT_FOUND", "there is no repository nvidia/none"],
    [`hf://${REPO}@v9`, "NOT_FOUND", 'has no revision "v9"'],
    ["hf://nvidia", "USAGE", "is not an address on the Hub"],
    ["hf://nvidia/a--b", "USAGE", "is not a repository"],
    [`hf://${REPO}@../../x`, "USAGE", "is not a revision"],
  ])("%s", async (address, code, message) => {
    const failure = await inspect(address).catch((error) => error);
    expect([failure.code, failure.message]).toEqual([code, expect.stringContaining(message)]);
  });

  it("private and gated, with and without a token", async () => {
    here.hub.repositories.get(REPO)!.private = true;
    await expect(inspect(`hf://${REPO}`)).rejects.toMatchObject({
      code: "NOT_FOUND",
      next: expect.stringContaining("HF_TOKEN"),
    });
    process.env.HF_TOKEN = "hf_wrong";
    await expect(inspect(`hf://${REPO}`)).rejects.toMatchObject({
      code: "ACCESS_REFUSED",
      message: "the Hub does not know this token",
    });
    process.env.HF_TOKEN = "hf_right";
    await expect(inspect(`hf://${REPO}`)).resolves.toMatchObject({ family: "nemotron-h" });
    delete process.env.HF_TOKEN;
    Object.assign(here.hub.repositories.get(REPO)!, { private: false, gated: true });
    await expect(inspect(`hf://${REPO}`)).rejects.toMatchObject({
      code: "ACCESS_REFUSED",
      next: expect.stringContaining(`accept its conditions at ${here.hub.url}/${REPO}`),
    });
  });

  it("only the Hub gets the token, not the file storage", async () => {
    process.env.HF_TOKEN = "hf_right";
    await inspect(`hf://${REPO}`);
    delete process.env.HF_TOKEN;
    expect(asked(/^hub/).every(({ authorization }) => authorization === "Bearer hf_right")).toBe(true);
    expect(asked(/^storage/).length).toBeGreaterThan(0);
    expect(asked(/^storage/).every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("offline, with nothing in the cache", async () => {
    process.env.HF_HUB_OFFLINE = "1";
    await expect(inspect(`hf://${REPO}`)).rejects.toMatchObject({ code: "OFFLINE" });
    expect(here.hub.seen).toEqual([]);
  });
});
