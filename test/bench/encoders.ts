/** Speed of the casts to ggml's blocks on one thread, beside ggml's own code on the same numbers. */
import { execFileSync } from "node:child_process";
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { createCaster, SCRATCH_BYTES } from "../../src/cast/cast.ts";
import { createBlockEncoder } from "../../src/cast/encode-blocks.ts";
import { BLOCK_TARGETS } from "../../src/core/dtype.ts";
import { absent, ggmlEncoders } from "./peers.ts";

const COUNT = 1 << 20;
const SECONDS = 0.3;

/** Prints millions of weights a second, the best of all rounds: ours and ggml's take turns. */
export async function encoderSpeeds(rounds: number): Promise<void> {
  const memory = createSharedMemory(SCRATCH_BYTES + 16 * COUNT);
  const [at, toAt] = [FIRST_ADDRESS + SCRATCH_BYTES, FIRST_ADDRESS + SCRATCH_BYTES + 4 * COUNT];
  const caster = await createCaster(memory, FIRST_ADDRESS);
  const encoder = await createBlockEncoder(memory, FIRST_ADDRESS, caster);
  const bell = () => (Math.random() + Math.random() + Math.random() - 1.5) / 20;
  new Float32Array(memory.buffer, at, COUNT).set(Float32Array.from({ length: COUNT }, bell));
  const why = absent("ggml");
  const [ours, ggml] = [new Map<string, number>(), new Map<string, number>()];
  const raise = (best: Map<string, number>, dtype: string, rate: number) =>
    best.set(dtype, Math.max(rate, best.get(dtype) ?? 0));
  for (let round = 0; round < rounds; round++) {
    for (const dtype of BLOCK_TARGETS) {
      const started = performance.now();
      let runs = 0;
      do encoder.encode("F32", dtype, null, at, toAt, COUNT);
      while (performance.now() - started < 1000 * SECONDS && ++runs > 0);
      raise(ours, dtype, ((runs + 1) * COUNT) / (performance.now() - started) / 1000);
    }
    if (why !== undefined) continue;
    const [file, ...args] = ggmlEncoders(SECONDS);
    const rates: Record<string, number> = JSON.parse(execFileSync(file!, args, { encoding: "utf8" }));
    for (const [dtype, rate] of Object.entries(rates)) raise(ggml, dtype, rate);
  }
  console.log(`\n${"encoders, F32 in, one thread".padEnd(42)}million weights/s   ggml`);
  for (const dtype of BLOCK_TARGETS) {
    const peer = ggml.get(dtype)?.toFixed(0) ?? `skipped: ${why}`;
    console.log(dtype.padEnd(42) + ours.get(dtype)!.toFixed(0).padEnd(20) + peer);
  }
}
