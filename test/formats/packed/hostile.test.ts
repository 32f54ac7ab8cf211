import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { forged, goodIndex, hostile, indexed } from "../../../fixtures/generate/packed-hostile.ts";
import { sample, storeOf, written } from "../../../fixtures/generate/packed-sample.ts";
import { packed } from "../../../formats/packed/format.ts";
import { packedDamage } from "../../../formats/packed/read.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { splitMix64 } from "../../../src/core/random.ts";

const folder = new URL("../../../fixtures/hostile/packed/", import.meta.url);
const expected: Record<string, { code: string; message: string }> = JSON.parse(
  readFileSync(new URL("expected.json", folder), "utf8"),
);

describe("one damaged file a rule", () => {
  it("each is in the folder, in the list and in the generator", () => {
    const files = readdirSync(folder).filter((name) => name.endsWith(".isologit"));
    expect(files).toEqual(
      Object.keys(hostile)
        .map((rule) => `${rule}.isologit`)
        .sort(),
    );
    expect(Object.keys(expected)).toEqual(Object.keys(hostile));
  });

  it.each(Object.keys(hostile))("%s", async (rule) => {
    const file = new Uint8Array(readFileSync(new URL(`${rule}.isologit`, folder)));
    expect(Buffer.compare(file, hostile[rule]!()), "the generator gives other bytes").toBe(0);
    const error = await packed.read(storeOf(file)).then(
      () => expect.fail("read without complaint"),
      (e: unknown) => e,
    );
    if (!(error instanceof IsologitError)) throw error;
    const message = error.message.replace(/ \(line \d+ column \d+\)$/, ""); // which Node 22 adds to errors of JSON
    expect({ code: error.code, message }).toEqual(expected[rule]);
    expect(error.exit).toBe(3);
    expect(error.at.file).toBe(error.code === "CONFIG_INVALID" ? "config.json" : "model.isologit");
    if (error.code !== "CONFIG_INVALID") expect(error.at.offset).toBeTypeOf("number");
    if (rule.startsWith("tensor-") && !/name|beyond-2-53$/.test(rule))
      expect(error.at.tensor).toBeTypeOf("string");
  });
});

describe("counts beyond any real checkpoint", () => {
  const pair = (i: number) => ({ path: `f${i}`, offset: 0, size: 0 });
  it.each([
    [
      "16,385 side files",
      () => indexed((i) => ({ ...i, entries: Array.from({ length: 16_385 }, (_, n) => pair(n)) })),
    ],
    ["262,145 tensors", () => indexed((i) => ({ ...i, tensors: new Array(262_145).fill(0) }))],
    [
      "nine million values",
      () => indexed((i) => ({ ...i, tensors: new Array(34).fill(new Array(262_144).fill(0)) })),
    ],
  ])("%s", async (_what, make) => {
    await expect(packed.read(storeOf(make()))).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
  });
});

describe("random damage, seed 1: a value or an IsologitError, no third way", () => {
  /** SplitMix64 cut to 32 bits. */
  const words = splitMix64(1);
  const random = (below: number) => Number((words() & 0xffffffffn) % BigInt(below));
  const damaged = (bytes: Uint8Array) => {
    let out = bytes.slice();
    for (let edits = 1 + random(4); edits > 0 && out.byteLength > 0; edits--) {
      const at = random(out.byteLength);
      const rest = out.subarray(at + random(8));
      if (random(3) === 0) out = Uint8Array.from([...out.subarray(0, at), random(256), ...rest]);
      else out[at] = random(3) === 0 ? 0xc0 + random(64) : random(256);
    }
    return out;
  };
  const survives = async (bytes: Uint8Array) => {
    try {
      await packed.read(storeOf(bytes));
      for await (const fault of packedDamage(storeOf(bytes))) expect(fault).toBeInstanceOf(IsologitError);
      return "value";
    } catch (error) {
      if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
      return error.code;
    }
  };

  it("of the whole file", async () => {
    const file = written(sample);
    for (let i = 0; i < 5000; i++) await survives(damaged(file));
  });

  it("of the index, with every digest right", async () => {
    const seen = new Set<string>();
    for (let i = 0; i < 10_000; i++) seen.add(await survives(forged({ index: damaged(goodIndex) })));
    expect([...seen].sort()).toMatchInlineSnapshot(`
      [
        "DTYPE_UNKNOWN",
        "HEADER_INVALID",
        "LIMIT_EXCEEDED",
        "NAME_INVALID",
        "PATH_UNSAFE",
        "SIZE_UNSAFE",
        "SPAN_INVALID",
        "VERSION_UNSUPPORTED",
        "value",
      ]
    `);
  });
});
