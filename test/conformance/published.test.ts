/** Models of published shapes: as many parameters as published, and cut to a size. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { cutTo, PUBLISHED, type PublishedName } from "../../fixtures/generate/published.ts";
import { modelBytes, synthesize } from "../../src/conformance/synthesize.ts";
import { workFolder } from "../support/goldens.ts";

it.each<[PublishedName, number]>([
  ["4B", 4.489e9],
  ["8B", 8.101e9],
  ["47B", 46.792e9],
  ["56B", 56.324e9],
  ["9B-v2", 8.888e9],
  ["12B-v2", 12.31e9],
  ["30B-A3B", 31.578e9],
])(
  "%s has the published number of parameters, and keeps its first layers when it is cut",
  (name, published) => {
    const whole = PUBLISHED[name];
    expect(Math.abs(modelBytes(whole) / 2 / published - 1)).toBeLessThan(2e-4);
    expect(cutTo(whole, Infinity)).toEqual(whole);
    const cut = cutTo(whole, 6e9);
    const bytes = modelBytes(cut);
    expect(bytes).toBeLessThanOrEqual(6e9);
    expect(whole.hybrid_override_pattern.startsWith(cut.hybrid_override_pattern)).toBe(true);
    const longer = {
      ...cut,
      hybrid_override_pattern: whole.hybrid_override_pattern.slice(0, layers(cut) + 1),
    };
    expect(modelBytes(longer)).toBeGreaterThan(6e9 * 0.9); // but for the vocabulary, one layer more is too large
    expect(() => cutTo(whole, 1e6)).toThrow(RangeError);
  },
);

const layers = ({ hybrid_override_pattern: pattern }: { hybrid_override_pattern: string }) => pattern.length;

it("numbers that repeat give the same bytes each time, and unlike tensors", async () => {
  const work = workFolder();
  const tensors = async (folder: string, seed: number) => {
    const config = {
      ...{ ...PUBLISHED["8B"], hybrid_override_pattern: "--", hidden_size: 256, intermediate_size: 512 },
      vocab_size: 512,
    };
    await synthesize(join(work, folder), { config, seed, maxShardBytes: 1e9, repeats: true });
    return readFileSync(join(work, folder, "model.safetensors"));
  };
  const [first, again, other] = [await tensors("a", 1), await tensors("b", 1), await tensors("c", 2)];
  expect(first.equals(again)).toBe(true);
  expect(first.equals(other)).toBe(false);
  const header = Number(first.readBigUInt64LE());
  const places = JSON.parse(first.toString("utf8", 8, 8 + header));
  const bytesOf = (name: string) => {
    const [from, to] = places[name].data_offsets as [number, number];
    return first.subarray(8 + header + from, 8 + header + to);
  };
  const up = (layer: number) => bytesOf(`backbone.layers.${layer}.mixer.up_proj.weight`);
  expect(up(0).equals(up(1))).toBe(false);
});
