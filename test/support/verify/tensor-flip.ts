/** One flipped bit of one tensor, which a verification must name. */
import { expect } from "vitest";
import type { VerifyOptions } from "../../../src/certificate/options.ts";
import { countOf } from "../../../src/core/dtype.ts";
import { type Copy, Editor, opened } from "./planted.ts";
import { verifyCheckpoints } from "./verify-checkpoints.ts";

/** Bands of 64 KiB, of which the largest tensors of small goldens have several. */
export const SMALL_BANDS: VerifyOptions = { tokens: 5, threads: 1, memoryBytes: 6 * 1024 * 1024 };

/** @param turn decides where the bit is: in the first band, in the middle, or in the last */
export async function expectFlipNamed(source: Copy, tensor: string, turn: number): Promise<void> {
  const last = countOf(source.tensors.get(tensor)!.shape) - 1;
  const element = [0, Math.floor(last / 2), last][turn % 3]!;
  const editor = new Editor(source);
  editor.flip(tensor, element);
  const { verdict, rungs } = await verifyCheckpoints(
    await opened(source),
    await opened(editor.copy),
    SMALL_BANDS,
  );
  expect(verdict).toBe("different");
  const message = `the first differing element is ${element}`;
  expect(rungs[1]!.metrics).toMatchObject({ different: 1, differences: [{ tensors: [tensor], message }] });
}
