/** The state of two models that run step by step, between two layers: another process goes on with it. */
import { join } from "node:path";
import { z } from "zod";
import { canonicalJson, sha256 } from "../core/hash.ts";
import { FingerprintRecord } from "../inference/fingerprint.ts";
import type { Prompt } from "../inference/prompts.ts";
import { listNames } from "../io/stamps.ts";
import { readResult, real, writeResult } from "../io/tasks/result-file.ts";

const count = z.int().nonnegative();
const names = z.array(z.string()).readonly();

/** F32 values, little endian, in Base64. */
const Floats = z
  .base64()
  .refine((text) => Buffer.byteLength(text, "base64") % 4 === 0)
  .transform((text): Float32Array => new Float32Array(Uint8Array.from(Buffer.from(text, "base64")).buffer));

const Control = z.strictObject({
  ...{ layer: z.int(), kind: z.string(), door: z.string(), mutation: z.string() },
  caught: z.boolean().nullable(),
  void: z.enum(["equal blocks", "zero input"]).exactOptional(),
  matrix: z.boolean(),
});

const LockstepState = z.strictObject({
  /** number of main layers that have run */
  layers: count,
  /** the residual stream of each run, [T, hidden] */
  residuals: z.array(Floats).readonly(),
  drifts: z
    .array(z.strictObject({ layer: z.int(), kind: z.string(), driftRelL2: real, localRelL2: real }))
    .readonly(),
  flips: count,
  inOrder: z.boolean(),
  wiring: z.strictObject({
    ...{ maxRelL2: real, limit: real, expectedZeros: names },
    bad: z
      .array(
        z.strictObject({ layer: z.int(), kind: z.string(), door: z.string(), relL2: real, tensors: names }),
      )
      .readonly(),
  }),
  controls: z.strictObject({
    results: z.array(Control).readonly(),
    slots: z.record(z.string(), z.strictObject({ index: count, open: z.boolean() })),
  }),
  fingerprint: FingerprintRecord,
});
export type LockstepState = z.infer<typeof LockstepState>;

/** What the state of a run is about: the same comparison of the same files, on the same tokens, by the same kernels. */
export const stateMark = (
  comparison: string,
  { ids, textTokens }: Pick<Prompt, "ids" | "textTokens">,
  backend: string,
): string => sha256(canonicalJson({ comparison, ids, textTokens, backend }));

const NAME = /^layers\.(\d+)\.json$/;
const fileOf = (folder: string, layers: number): string => join(folder, `layers.${layers}.json`);

/** Writes a state. The file appears complete or not at all. */
export async function writeState(folder: string, mark: string, state: LockstepState): Promise<void> {
  const residuals = state.residuals.map(({ buffer, byteOffset, byteLength }) =>
    Buffer.from(buffer, byteOffset, byteLength).toString("base64"),
  );
  await writeResult(fileOf(folder, state.layers), mark, { ...state, residuals });
}

/** The state after a number of layers; null if there is none about the same run. */
export async function readState(folder: string, mark: string, layers: number): Promise<LockstepState | null> {
  const state = await readResult(fileOf(folder, layers), mark, LockstepState);
  return state?.layers === layers ? state : null;
}

/** The state after most layers; null if there is none about the same run. */
export async function furthestState(folder: string, mark: string): Promise<LockstepState | null> {
  const layers = (await listNames(folder)).flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  for (const after of layers.sort((a, b) => b - a)) {
    const state = await readState(folder, mark, after);
    if (state !== null) return state;
  }
  return null;
}
