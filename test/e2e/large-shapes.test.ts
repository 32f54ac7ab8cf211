/** The widths of the 56B model, in 1 GiB: one tensor has 2^31 bytes, more than the limit and more than one read of Node can take. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { PUBLISHED } from "../../fixtures/generate/published.ts";
import { synthesizeZeros } from "../../src/conformance/synthesize.ts";
import { workFolder } from "../support/goldens.ts";
import { shell } from "../support/program.ts";

const GIB = 2 ** 30;

/** A slow disk takes so long for the 2.3 GB that are written. */
const MAX_MS = 240_000;

const work = workFolder();
const [model, out] = [join(work, "model"), join(work, "out")];

// the head is the embedding, so that half the bytes are written
const shape = { ...PUBLISHED["56B"], hybrid_override_pattern: "*", tie_word_embeddings: true };
await synthesizeZeros(model, shape);

/** @param limit bytes of private memory that may be written: V8 reserves many more, and asks for this right as it needs it */
const recast = (limit: number) => {
  const options = "--dtype fp8-e4m3 --keep-ends 0 --recipe all-linear --memory 512MiB --verify off --json";
  return shell(`ulimit -d ${limit / 1024}; isologit recast ${model} ${out} ${options}`, {}, MAX_MS);
};

it("it is converted, the embedding as it is and the matrices to FP8", { timeout: MAX_MS }, async () => {
  expect(statSync(join(model, "model.safetensors")).size).toBeGreaterThan(2 * GIB);
  const { status, stdout, stderr } = await recast(GIB);
  expect(status, stderr).toBe(0);
  expect(JSON.parse(stdout).peakRssBytes).toBeLessThan(GIB);
});

it.skipIf(process.platform !== "linux")("the limit is a limit", { timeout: MAX_MS }, async () => {
  expect((await recast(GIB / 16)).status).not.toBe(0);
});
