/** A cast with a scale for each block writes the same bytes, whatever a buffer can hold. */
import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { hf } from "../../formats/hf/format.ts";
import { matchModel } from "../../src/checkpoint/load.ts";
import { planConversion } from "../../src/convert/plan.ts";
import { SealedSource } from "../../src/convert/tensors/sealed-source.ts";
import { TensorWork } from "../../src/convert/tensors/tensor-work.ts";
import type { ConversionRun } from "../../src/convert/types.ts";
import { tensorKey } from "../../src/core/checkpoint.ts";
import { Sources } from "../../src/core/read.ts";
import { fileStore } from "../../src/io/file.ts";
import { BandWorker } from "../../src/workers/pool.ts";
import { golden } from "../support/goldens.ts";

/** The written bytes of every tensor that is cast, by place, and their digests. */
async function castAll(quantScales: "row" | "block" | "mxfp8", bufferBytes: number) {
  const model = matchModel(await hf.read(await fileStore(golden("tiny"))), {});
  const options = { dtype: "fp8-e4m3", recipe: "all-linear", quantScales } as const;
  const plan = await planConversion(model, { writer: hf.writes!, options, version: "test" });
  const written = new Map<string, number[]>();
  let writes = 0;
  const staging = {
    /** Every second write ends after the next ones. */
    async writeAt(file: string, offset: number, bytes: Uint8Array) {
      for (let turns = writes++ % 2 === 0 ? 20 : 0; turns > 0; turns--) await setImmediate();
      const all = written.get(file) ?? [];
      for (const [i, byte] of bytes.entries()) all[offset + i] = byte;
      written.set(file, all);
    },
  };
  // only these members are used by the work on one tensor
  const running = {
    plan,
    staging,
    writer: hf.writes!,
    watch: () => {},
    alone: false,
  } as unknown as ConversionRun;
  await using sources = new Sources(model.checkpoint.store);
  const worker = new BandWorker({ bufferBytes, heldBytes: 0 });
  const places = new Map(plan.placement.tensors.map((place) => [place.name, place]));
  const digests = new Map<string, unknown>();
  try {
    const work = new TensorWork(running, sources, new SealedSource(plan.source, sources, undefined), worker);
    for (const job of plan.jobs.filter(({ cast }) => cast !== undefined))
      digests.set(tensorKey(job.tensor), await (await work.start([job], places)).digests);
  } finally {
    await worker.close();
  }
  return { written, digests };
}

it.each([
  ["row", 1024],
  ["block", 1024],
  ["block", 8 * 1024],
  ["mxfp8", 1024],
] as const)("by %s, in buffers of %i bytes", async (quantScales, bufferBytes) => {
  const small = await castAll(quantScales, bufferBytes);
  const large = await castAll(quantScales, 1024 * 1024);
  expect(small.digests).toEqual(large.digests);
  expect(small.written).toEqual(large.written);
  expect(small.digests.size).toBeGreaterThan(20);
});

it("a buffer that holds no row is refused", async () => {
  await expect(castAll("row", 128)).rejects.toMatchObject({ code: "PLAN_MEMORY" });
});
