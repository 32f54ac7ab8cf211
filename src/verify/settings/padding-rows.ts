/** Checks the rows that a padded vocabulary adds. No role has these rows and no rung compares them, but some software uses them. */

import type { Tensor } from "../../core/checkpoint.ts";
import { countOf, isNumeric, type NumericDType, widthOf } from "../../core/dtype.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import { widen } from "../../core/float.ts";
import { boxMove, countOfMove, type Move, runsOf } from "../../core/mapping/moves.ts";
import { extentsOf, Sources } from "../../core/read.ts";
import type { MatchedModel } from "../../families/model.ts";

/** Number of values read at a time. */
const BAND = 1024 * 1024;

/** Findings about stored tables with rows that belong to no role and are not zero. */
export async function paddingFindings({
  checkpoint,
  tensors,
  roleSources,
}: MatchedModel): Promise<readonly Finding[]> {
  const moves = new Map<string, Move[]>();
  for (const move of [...roleSources.values()].flat()) {
    const name = move.of!; // the sources of a role have names
    const known = moves.get(name);
    if (known === undefined) moves.set(name, [move]);
    else known.push(move);
  }
  await using sources = new Sources(checkpoint.store);
  const findings: Finding[] = [];
  for (const [name, parts] of moves) {
    const tensor = tensors.get(name)!;
    const [count, used] = [countOf(tensor.shape), parts.reduce((sum, part) => sum + countOfMove(part), 0)];
    if (used === count || tensor.shape.length !== 2 || !isNumeric(tensor.dtype)) continue;
    let largest = 0;
    for (const gap of gapsIn(tensor, parts)) {
      largest = Math.max(largest, await largestIn(tensor, tensor.dtype, gap, sources));
    }
    if (largest === 0) continue;
    const rows = (count - used) / tensor.shape[1]!;
    const message = `${name}: ${rows} rows of padding hold values up to ${largest}; software that does not remove these rows may generate ids that the tokenizer does not have`;
    findings.push(remark("padding-values", message, { tensor: name }));
  }
  return findings;
}

interface Gap {
  readonly from: number;
  readonly to: number;
}

/** Ranges of elements that no move reads. */
function gapsIn({ shape }: Tensor, moves: readonly Move[]): readonly Gap[] {
  const whole = moves.flatMap((move) => [...runsOf(boxMove(move), -Infinity, Infinity)]);
  const runs = whole.sort((a, b) => a.from - b.from);
  const starts = [0, ...runs.map(({ from, count }) => from + count)];
  const ends = [...runs.map(({ from }) => from), countOf(shape)];
  return starts.map((from, i) => ({ from, to: ends[i]! })).filter(({ from, to }) => from < to);
}

/** The largest absolute value of a gap; infinity where a value is NaN. */
async function largestIn(
  tensor: Tensor,
  dtype: NumericDType,
  { from, to }: Gap,
  sources: Sources,
): Promise<number> {
  let largest = 0;
  for (let lo = from; lo < to; lo += BAND) {
    const hi = Math.min(to, lo + BAND);
    const bytes = new Uint8Array((hi - lo) * widthOf(dtype));
    await sources.read(extentsOf(tensor, lo, hi), bytes);
    for (const value of widen(dtype, bytes)) {
      largest = Math.max(largest, Number.isNaN(value) ? Infinity : Math.abs(value));
    }
  }
  return largest;
}
