/** `prune --sizes` and `importance` of a model on the Hub: the numbers of the same files on disk. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { importance } from "../../src/api/pruning/importance.ts";
import { sizes } from "../../src/api/pruning/sizes.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { putFolder, world } from "../support/hub/world.ts";

const work = workFolder();
const here = world(work);
const source = golden("sharded");
const address = "hf://nvidia/sharded";
const SHARDS = [...filesOf(source).keys()].filter((path) => /^model-.*safetensors$/.test(path));
const WITH_HEADERS = [...SHARDS, "reference.safetensors"];
const WASM = { backend: "wasm", threads: 1 } as const;

beforeEach(() => {
  Object.assign(process.env, here.env);
  delete process.env.HF_HUB_OFFLINE;
  here.hub.repositories.clear();
  putFolder(here.hub, "nvidia/sharded", source);
});

const weightBytes = () =>
  here.hub.seen
    .filter(({ method, url, server }) => /^storage GET \/objects/.test(`${server} ${method} ${url}`))
    .reduce((sum, { bytes }) => sum + bytes, 0);
const headerBytes = (path: string) => 16 + Number(readFileSync(join(source, path)).readBigUInt64LE(0));

it.each([
  ["the model as it is", {}],
  ["a budget", { budget: "memory=1GiB,weights=fp4,kv=fp8" }],
  ["a shape", { drop: [1] }],
])("sizes, %s: from headers alone", async (_, options) => {
  const found = await sizes(address, { ...options, table: true });
  expect(weightBytes()).toBe(WITH_HEADERS.reduce((sum, path) => sum + headerBytes(path), 0));
  expect(found).toEqual(await sizes(source, { ...options, table: true }));
});

it("importance: the same bytes, and each weight is fetched once", async () => {
  const scored = async (from: string, name: string) => {
    const out = join(work, name);
    const report = await importance(from, { ...WASM, out, ids: [1, 2, 3], cheap: true });
    return { bytes: readFileSync(out).toString("base64"), root: report.source.root, layers: report.layers };
  };
  const theirs = await scored(address, "hub.safetensors");
  const fetched = weightBytes();
  expect(theirs).toEqual(await scored(source, "disk.safetensors"));
  const whole = SHARDS.reduce((sum, path) => sum + readFileSync(join(source, path)).byteLength, 0);
  expect(fetched).toBeGreaterThan(0.9 * whole);
  expect(fetched).toBeLessThan(1.2 * whole);
});
