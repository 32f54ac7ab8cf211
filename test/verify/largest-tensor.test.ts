/**
 * A token table and a head of 2^31 bytes, as the 47B and 56B models have them: one byte more than a single read may
 * ask for, and more than a GPU binds. The file is a hole but for its last rows.
 */
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { encodeHeader, readHeader } from "../../formats/codec/safetensors.ts";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { Sources } from "../../src/core/read.ts";
import { createRunner } from "../../src/inference/model-runner.ts";
import { Rounder } from "../../src/inference/rounding.ts";
import { workFolder } from "../support/goldens.ts";
import { gpuBackend } from "../support/kernels/software-gpu.ts";
import { memorySource } from "../support/memory-store.ts";
import { smallModel } from "../support/small.ts";

const [VOCAB, HIDDEN, LAST] = [131_072, 8192, 3];
const folder = join(workFolder(), "large");

/** As BF16 whose F32 is exact: small whole numbers, unlike along a row and from row to row. */
const valueAt = (row: number, column: number) => ((row * 31 + column * 7) % 17) - 8;
const bf16 = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0]! >>> 16;

beforeAll(async () => {
  await smallModel(folder, "-", { hidden_size: HIDDEN, intermediate_size: 16, vocab_size: 8 });
  const [config, weights] = ["config.json", "model.safetensors"].map((name) => join(folder, name));
  await writeFile(
    config!,
    (await readFile(config!, "utf8")).replace(/"vocab_size": *8/, `"vocab_size": ${VOCAB}`),
  );
  const { tensors } = await readHeader(memorySource(weights!, new Uint8Array(await readFile(weights!))));
  const large = tensors.map(({ name, dtype, shape }) => ({
    ...{ name, dtype },
    shape: shape.length === 2 && shape[0] === 8 ? [VOCAB, HIDDEN] : shape,
  }));
  const header = encodeHeader(large, { format: "pt" });
  await using file = await open(weights!, "w");
  await file.write(header);
  let end = header.byteLength;
  for (const { dtype, shape } of large) {
    end += bytesOf(dtype, shape);
    if (shape[0] !== VOCAB) continue;
    const rows = Uint16Array.from({ length: LAST * HIDDEN }, (_, i) =>
      bf16(valueAt(Math.floor(i / HIDDEN), i % HIDDEN)),
    );
    await file.write(new Uint8Array(rows.buffer), 0, rows.byteLength, end - rows.byteLength);
  }
  await file.truncate(end);
});

it.each([
  ["a GPU", () => gpuBackend()],
  ["WASM", () => createWasmBackend({ threads: 1, memoryBytes: 64 << 20 })],
] as const)("its last rows are read and multiplied, on %s", async (_, make: () => Promise<Backend>) => {
  await using backend = await make();
  const model = await loadModelWithScales(await openCheckpoint(folder), {});
  await using sources = new Sources(model.checkpoint.store);
  const side = createRunner(model, {
    ...{ backend, sources, rounder: await Rounder.create(), roundings: new Map() },
    ...{ bandBytes: 1 << 20, tokens: 1, advance: () => {}, signal: undefined },
  });
  const hidden = backend.allocate(4 * HIDDEN);
  await side.embed([VOCAB - 1], "stored", hidden);
  const row = Array.from({ length: HIDDEN }, (_, column) => valueAt(LAST - 1, column));
  expect([...(await backend.view(hidden, HIDDEN))]).toEqual(row);

  const { head } = model.family.forward;
  const end = head.at(-1)!;
  const from = end.op === "linear" ? end.from : "";
  const logits = backend.allocate(4 * (LAST + 1));
  const set = { inputs: new Map([[from, hidden]]), outputs: new Map(), weights: "stored" as const };
  await side.logits(from, VOCAB - LAST - 1, VOCAB, [set], [logits]);
  const dot = (r: number) => row.reduce((sum, value, column) => sum + value * valueAt(r, column), 0);
  expect([...(await backend.view(logits, LAST + 1))]).toEqual([0, dot(0), dot(1), dot(2)]); // whole numbers: exact
  side.close();
});
