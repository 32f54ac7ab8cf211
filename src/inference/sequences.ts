/** Stages in which the rows of several sequences follow each other and must not see each other. */
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { KernelStage } from "../families/forward.ts";
import type { Dims } from "../families/structure.ts";

interface SequenceRun {
  readonly backend: Backend;
  readonly dims: Dims;
  /** elements in one row of each stream */
  readonly widths: Readonly<Record<string, number>>;
  /** rows of each sequence */
  readonly sequences: readonly number[];
}

/** Writes values to a region of the same length. */
export async function putFloats(backend: Backend, region: Region, values: Float32Array): Promise<void> {
  const { buffer, byteOffset, byteLength } = values;
  await backend.upload(region, byteLength, (view) =>
    view.set(new Uint8Array(buffer, byteOffset, byteLength)),
  );
}

/**
 * The input of a stage that depends on positions alone; each sequence begins at position 0.
 *
 * @returns a new region, [rows of all sequences, any width] F32; undefined if the stage has no such input
 */
export async function positionTable(
  stage: KernelStage,
  { backend, dims, sequences }: Omit<SequenceRun, "widths">,
): Promise<Region | undefined> {
  if (stage.table === undefined) return undefined;
  const parts = sequences.map((rows) => stage.table!(dims, 0, rows));
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  const region = backend.allocate(all.byteLength);
  await putFloats(backend, region, all);
  return region;
}

/** Runs a stage in which tokens depend on earlier ones, for each sequence alone. */
export async function runBySequence(
  stage: KernelStage,
  { backend, dims, widths, sequences }: SequenceRun,
  inputs: readonly Region[],
  parameters: readonly Region[],
  output: Region,
): Promise<void> {
  const tokens = sequences.reduce((sum, rows) => sum + rows, 0);
  const columns = stage.from.map((name) => widths[name]!);
  const values: Float32Array[] = [];
  for (const [i, input] of inputs.entries()) values.push(await backend.view(input, tokens * columns[i]!));
  const width = widths[stage.to]!;
  const joined = new Float32Array(tokens * width);
  let first = 0;
  for (const rows of sequences) {
    const parts = columns.map((count) => backend.allocate(4 * rows * count));
    for (const [i, part] of parts.entries())
      await putFloats(backend, part, values[i]!.subarray(first * columns[i]!, (first + rows) * columns[i]!));
    const result = backend.allocate(4 * rows * width);
    await stage.run(backend, dims, rows, [...parts, ...parameters], result);
    joined.set(await backend.view(result, rows * width), first * width);
    for (const region of [...parts, result]) backend.release(region);
    first += rows;
  }
  await putFloats(backend, output, joined);
}
