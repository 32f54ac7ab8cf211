/** Which bands of two checkpoints make a pair of equal tensors, and that its digest is of these bands alone. */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createWasmBackend } from "../../../kernels/backend/wasm.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import type { Tensor } from "../../../src/core/checkpoint.ts";
import { matmulTask } from "../../../src/inference/products/tasks.ts";
import type { ModelRunner } from "../../../src/inference/runner.ts";
import type { BandData, VersionData } from "../../../src/inference/weight-bands.ts";
import { EqualDigests, pairKey } from "../../../src/verify/pairs/equal-digests.ts";
import { PairedReading } from "../../../src/verify/pairs/paired-reading.ts";

const [ROWS, COLUMNS, BANDS] = [2, 8, 3];
const SIZE = 4 * ROWS * COLUMNS;
const tensorOf = (name: string): Tensor => ({
  ...{ name, dtype: "F32", shape: [ROWS * BANDS, COLUMNS], pieces: [] },
});
const tensors = { x: tensorOf("x"), y: tensorOf("y") };

let backend: Backend;
beforeAll(async () => {
  backend = await createWasmBackend({ threads: 1, memoryBytes: 2 ** 25 });
});
afterAll(() => backend[Symbol.asyncDispose]());

/** The bytes of a band: of the source, and of the destination. */
const bytesOf = (name: string, band: number): Buffer => Buffer.alloc(SIZE, `${name}${band}`);

async function filled(bytes: Uint8Array, about: Partial<VersionData> = {}): Promise<VersionData> {
  const region = backend.allocate(SIZE);
  await backend.upload(region, SIZE, async (view) => view.set(bytes));
  return { region, dtype: "F32", scale: 1, areValues: false, ...about };
}

/**
 * Gives bands to a reading.
 *
 * @param bands such as "x0": the first band of x, equal on both sides; "x0!": unlike
 * @returns the digests of the pairs that it finds, and what it should be for all bands of a tensor
 */
async function pairsAmong(bands: readonly string[]) {
  await using digests = await EqualDigests.open(backend, backend.memory!);
  const pairs = new PairedReading(backend, digests);
  const products = Object.values(tensors).map((tensor) => ({ tensor, description: "" }));
  let destination: Buffer = Buffer.alloc(0);
  const runner = { band: async () => ({ stored: await filled(destination) }) };
  const stage = pairs.stage(products, products, runner as unknown as ModelRunner)!; // it uses nothing else
  for (const text of bands) {
    const [name, band] = [text[0] as keyof typeof tensors, Number(text[1])];
    destination = bytesOf(name, band);
    if (text.endsWith("!")) destination[SIZE - 1]! ^= 1;
    const [lo, hi] = [band * ROWS, (band + 1) * ROWS];
    const stored = await filled(bytesOf(name, band));
    const data: BandData = { lo, hi, stored, version: () => stored, keep() {} };
    const outputs = [{ to: "y", at: lo, from: lo, count: ROWS }];
    await stage.observe(matmulTask({ tensor: tensors[name], outputs, inputOffset: 0 }), data);
  }
  const found = [...(await digests.finish())].map(([key, { sha256 }]) => [key, sha256]);
  return { found: Object.fromEntries(found), areEqual: stage.areEqual };
}

const whole = (name: string) => {
  const sha = createHash("sha256");
  for (let band = 0; band < BANDS; band++) sha.update(bytesOf(name, band));
  return [pairKey(name, name), sha.digest("hex")];
};

it.each<[string, readonly string[], readonly string[]]>([
  ["both", ["x0", "x1", "x2", "y0", "y1", "y2"], ["x", "y"]],
  ["one after a tensor that differs in its last band", ["x0", "x1", "x2!", "y0", "y1", "y2"], ["y"]],
  ["one after a tensor that differs in a middle band", ["x0", "x1!", "x2", "y0", "y1", "y2"], ["y"]],
  ["one after a tensor that differs in its first band", ["x0!", "x1", "x2", "y0", "y1", "y2"], ["y"]],
  ["one after a tensor that ends early", ["x0", "y0", "y1", "y2"], ["y"]],
  ["one that was read again", ["x0", "x1!", "x0", "x1", "x2"], ["x"]],
  ["none where a band comes twice in the place of another", ["x0", "x1", "x1"], []],
  ["none where a band is missing", ["x0", "x2", "x1!"], []],
])("finds %s", async (_, bands, expected) => {
  const { found, areEqual } = await pairsAmong(bands);
  expect(found).toEqual(Object.fromEntries(expected.map(whole)));
  expect(areEqual).toBe(!bands.some((band) => band.endsWith("!")));
});

it.each<[string, Partial<VersionData>, number, boolean]>([
  ["are one product as they are", {}, 0.5, true],
  ["are another product with another scale", { scale: 2 }, 1, false],
  ["are another product as another dtype", { dtype: "BF16" }, 1, false],
  ["are another product as products that the other side divides", { areValues: true }, 0.5, false],
  ["are one product where neither side divides", { areValues: true }, 1, true],
])("equal bytes %s", async (_, about, times, expected) => {
  const rounded = await filled(bytesOf("x", 0), about);
  const runner = { band: async () => ({ stored: await filled(bytesOf("x", 0)) }) };
  const products = [{ tensor: tensors.x, description: "" }];
  const pairs = new PairedReading(backend);
  const stage = pairs.stage(products, products, runner as unknown as ModelRunner)!; // it uses nothing else
  const stored = await filled(bytesOf("y", 0));
  const data: BandData = { lo: 0, hi: ROWS, stored, version: () => rounded, keep() {} };
  const outputs = [{ to: "y", at: 0, from: 0, count: ROWS, times }];
  await stage.observe(matmulTask({ tensor: tensors.x, outputs, inputOffset: 0 }), data);
  expect(stage.areEqual).toBe(expected);
});

it("digests that still run when the reading fails are given up, and nobody else hears of it", async () => {
  const digests = await EqualDigests.open(backend, backend.memory!);
  const { region } = await filled(Buffer.alloc(SIZE));
  const address = (await backend.view(region, 0)).byteOffset;
  const tensor: Tensor = { ...tensors.x, shape: [ROWS, COLUMNS] }; // this band is its last
  const given = digests.add({ tensors: [tensor, tensor], from: 0, count: ROWS * COLUMNS, address });
  await digests[Symbol.asyncDispose]();
  await expect(given).rejects.toMatchObject({ code: "INTERNAL" });
});
