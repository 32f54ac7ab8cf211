/**
 * One reading serves bytes and logits. What it claims must be what separate readings find: the same report, the digests of the
 * stored bytes, and a flipped bit of any tensor, at its element.
 */
import { createHash } from "node:crypto";
import { describe, expect, it, vi } from "vitest";
import { convert } from "../../../src/api/convert.ts";
import { loadModelWithScales, type ModelWithScales } from "../../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../../src/checkpoint/open.ts";
import type { Checkpoint } from "../../../src/core/checkpoint.ts";
import type { ByteSource } from "../../../src/core/io.ts";
import { seededIds } from "../../../src/inference/prompts.ts";
import { ModelRunner } from "../../../src/inference/runner.ts";
import { compareBytes } from "../../../src/verify/bytes/bytes.ts";
import { logitsRung } from "../../../src/verify/logits.ts";
import { type EqualContent, pairKey } from "../../../src/verify/pairs/equal-digests.ts";
import { verifyModels } from "../../../src/verify/verify.ts";
import { poolSize, WorkerPool } from "../../../src/workers/pool.ts";
import { familyGolden, golden, workFolder } from "../../support/goldens.ts";
import { copyOf } from "../../support/verify/planted.ts";
import { expectFlipNamed, SMALL_BANDS } from "../../support/verify/tensor-flip.ts";
import { unpaired } from "../../support/verify/wiring.ts";

const work = workFolder();
const PROMPT = { ids: seededIds(5, 0, 512), textTokens: 0 };

const modelOf = async (checkpoint: Checkpoint): Promise<ModelWithScales> =>
  loadModelWithScales(checkpoint, {});
const FOLDERS = {
  tiny: golden("tiny"),
  moe: golden("moe"),
  "latent-moe": golden("latent-moe"),
  llama: familyGolden("llama"),
  qwen3_moe: familyGolden("qwen3_moe"),
};

async function bytesOf(a: ModelWithScales, b: ModelWithScales, equal: EqualContent) {
  await using pool = new WorkerPool(poolSize(SMALL_BANDS.memoryBytes!, 1));
  const options = { pool, strictScales: true, phase: "bytes", watch() {}, signal: undefined } as const;
  return await compareBytes({ ...options, a, b, equal });
}

describe.each(Object.entries(FOLDERS))("%s and its packed file", async (name, folder) => {
  const packed = `${work}/${name}.isologit`;
  await convert(folder, packed, { to: "packed", verify: "off" });
  const [a, b] = [await modelOf(await openCheckpoint(folder)), await modelOf(await openCheckpoint(packed))];
  const rung = () => logitsRung(a, b, SMALL_BANDS, PROMPT, { digests: true });
  const together = await rung();

  it("the logits rung finds what it finds alone", async () => {
    using _alone = unpaired();
    expect({ ...together, equal: new Map() }).toEqual(await rung());
    expect(together.verdict).toBe("same");
  });

  it("the bytes rung finds what it finds alone", async () => {
    expect(await bytesOf(a, b, together.equal)).toEqual(await bytesOf(a, b, new Map()));
  });

  it("digests are those of the stored bytes", async () => {
    const { tensors } = await copyOf(folder);
    for (const [tensor, { dtype, bytes }] of tensors) {
      const found = together.equal.get(pairKey(tensor, tensor));
      if (found === undefined) continue;
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      expect(found, tensor).toMatchObject({ dtype, sha256, dead: null });
    }
  });

  it("every matrix but the token table is among them", async () => {
    const { tensors } = await copyOf(folder);
    const isMatrix = (tensor: string) =>
      tensors.get(tensor)!.shape.length === 2 && !/embed|conv1d/.test(tensor);
    const left = [...tensors.keys()].filter(
      (tensor) => isMatrix(tensor) && !together.equal.has(pairKey(tensor, tensor)),
    );
    expect(left).toEqual([]);
  });
});

describe.each([
  ["f32", "fp8-e4m3", true],
  ["f32", "bf16", true],
  ["fp8-e4m3", "f32", false], // four times the bytes of the source: a band of it need not fit
] as const)("weights in %s, recast to %s", (from, to, isPaired) => {
  it.each(["tiny", "moe"])("%s: the logits rung finds what it finds alone", async (name) => {
    const [source, recast] = [`${work}/${name}-${from}-${to}`, `${work}/${name}-${from}-as-${to}`];
    await convert(golden(name), source, { to: "hf", dtype: from, verify: "off" });
    await convert(source, recast, { to: "hf", dtype: to, verify: "off" });
    const [a, b] = [await modelOf(await openCheckpoint(source)), await modelOf(await openCheckpoint(recast))];
    using runs = vi.spyOn(ModelRunner.prototype, "run");
    const products = () => runs.mock.calls.filter(([{ op }]) => op === "linear" || op === "experts").length;
    const options = { ...SMALL_BANDS, memoryBytes: 16 * 1024 * 1024 };
    const together = await logitsRung(a, b, options, PROMPT);
    const computed = products();
    using _alone = unpaired();
    expect(await logitsRung(a, b, options, PROMPT)).toEqual(together);
    expect(together.verdict).toBe("within");
    expect(computed < products() - computed).toBe(isPaired);
  });
});

/** The checkpoint, and how many bytes of its weight files were read. */
function counting(checkpoint: Checkpoint): { readonly checkpoint: Checkpoint; readonly bytes: () => number } {
  let bytes = 0;
  const { store } = checkpoint;
  const open = async (path: string): Promise<ByteSource> => {
    const source = await store.open(path);
    return {
      ...{ url: source.url, size: source.size },
      readInto(target, offset, signal) {
        if (/^model.*\.safetensors$/.test(path)) bytes += target.byteLength;
        return source.readInto(target, offset, signal);
      },
      [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
    };
  };
  return { checkpoint: { ...checkpoint, store: { ...store, open } }, bytes: () => bytes };
}

it("weights are read once: again only vectors, and of the destination the rows of controls", async () => {
  const sides = await Promise.all([0, 1].map(async () => counting(await openCheckpoint(golden("sharded")))));
  const [a, b] = [await modelOf(sides[0]!.checkpoint), await modelOf(sides[1]!.checkpoint)];
  const before = sides.map(({ bytes }) => bytes());
  const { report } = await verifyModels(a, b, SMALL_BANDS);
  expect(report.verdict).toBe("same");
  const stored = [...(await copyOf(golden("sharded"))).tensors.values()];
  const size = stored.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  const [source, destination] = sides.map(({ bytes }, i) => (bytes() - before[i]!) / size);
  expect(source).toBeGreaterThanOrEqual(1);
  expect(source).toBeLessThan(1.03);
  expect(destination).toBeGreaterThanOrEqual(source!);
  expect(destination).toBeLessThan(1.15);
});

it("a pair that only the tables of uses know is read again", async () => {
  const [a, b] = [
    await modelOf(await openCheckpoint(golden("tiny"))),
    await modelOf(await openCheckpoint(golden("tiny"))),
  ];
  const { equal } = await logitsRung(a, b, SMALL_BANDS, PROMPT, { digests: true });
  const [one, other] = ["main.1.mlp.up", "main.4.mlp.up"];
  const sources = new Map([
    ...b.roleSources,
    [one, b.roleSources.get(other)!],
    [other, b.roleSources.get(one)!],
  ] as const);
  const { differences } = await bytesOf(a, { ...b, roleSources: sources }, equal);
  expect(differences.map(({ key }) => key)).toEqual([one, other]);
});

describe("a flipped bit, one layer of each kind; test/long/tensor-flips.test.ts has all", async () => {
  const tiny = await copyOf(golden("tiny"));
  const some = [...tiny.tensors.keys()].filter((tensor) => !/layers\.(?!0\.|1\.|3\.)/.test(tensor));
  it.each(some.map((tensor, i) => [tensor, i] as const))("of %s is named", async (tensor, i) => {
    await expectFlipNamed(tiny, tensor, i);
  });
});
