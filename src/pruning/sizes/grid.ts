/** The grid of a search: for each kind of layers how many may stay, and how wide the MLPs may be. */
import { IsologitError } from "../../core/errors.ts";
import type { Model } from "../../families/model.ts";
import { entriesOf } from "./entries.ts";
import { wholeShape } from "./shape.ts";

/** From `least` to `most` in steps, both included. */
interface GridRange {
  readonly least: number;
  readonly most: number;
  readonly step: number;
}

/** Ranges by layer kind, and "ffn"; an axis that is absent has its default. */
export type Grid = ReadonlyMap<string, GridRange>;

const AXES = ["attention", "mamba", "mlp", "moe", "ffn"];

/** More are measured by nobody, and a list of them would fill the memory. */
const MOST_CANDIDATES = 1_000_000;

/**
 * Reads a grid: `attention=1..10,mamba=41..54,ffn=24576..32768/1024`. An axis is `a..b`, `a..b/step`, or one number.
 *
 * @throws USAGE, which names the axis
 */
export function parseGrid(text: string): Grid {
  const ranges = [...entriesOf("grid", text, AXES)].map(([axis, value]) => {
    const [, first, last = first, step = "1"] = /^(\d+)(?:\.\.(\d+)(?:\/(\d+))?)?$/.exec(value) ?? [];
    const range = { least: Number(first), most: Number(last), step: Number(step) };
    const isRange = Number.isSafeInteger(range.least) && Number.isSafeInteger(range.most);
    if (isRange && range.least <= range.most && range.step > 0) return [axis, range] as const;
    const expected = "a number, `a..b` or `a..b/step`, with a not above b";
    throw new IsologitError("USAGE", `${axis} in \`grid\` is ${JSON.stringify(value)}, expected ${expected}`);
  });
  return new Map(ranges);
}

/**
 * The values of each axis of a model, ascending. Defaults: attention from 1 layer to all, other kinds from 75 % of their
 * layers to all, the width of MLPs from 75 % to 100 % in steps of 1/32.
 *
 * @throws USAGE for more layers or channels than the model has, and for more candidates than a search takes
 */
export function gridAxes(model: Model, grid: Grid): ReadonlyMap<string, readonly number[]> {
  const { counts, ffn } = wholeShape(model);
  const axes = new Map(Object.entries(counts).map(([kind, count]) => [kind, usualCounts(kind, count)]));
  axes.set("ffn", counts.mlp! > 0 ? usualWidths(ffn) : [ffn]);
  for (const [axis, { least, most, step }] of grid) {
    const limit = axis === "ffn" ? ffn : (counts[axis] ?? 0);
    if (most > limit || (axis === "ffn" && least < 1)) {
      const has = axis === "ffn" ? `MLPs of ${ffn} channels` : `${limit} of these layers`;
      throw new IsologitError(
        "USAGE",
        `${axis} in \`grid\` is from ${least} to ${most}; the model has ${has}`,
      );
    }
    axes.set(
      axis,
      Array.from({ length: Math.floor((most - least) / step) + 1 }, (_, i) => least + i * step),
    );
  }
  const candidates = [...axes.values()].reduce((product, { length }) => product * length, 1);
  if (candidates <= MOST_CANDIDATES) return axes;
  const message = `\`grid\` has ${candidates} candidates; a search takes at most ${MOST_CANDIDATES}`;
  throw new IsologitError("USAGE", message, {}, { next: "use larger steps in `grid`" });
}

function usualCounts(kind: string, count: number): readonly number[] {
  const least = kind === "attention" ? Math.min(1, count) : Math.ceil(0.75 * count);
  return Array.from({ length: count - least + 1 }, (_, i) => least + i);
}

/** 24/32 to 32/32 of a width; the steps count from the top where 32 does not divide the width. */
function usualWidths(ffn: number): readonly number[] {
  const step = Math.max(1, Math.floor(ffn / 32));
  return Array.from({ length: 9 }, (_, i) => ffn - (8 - i) * step).filter((width) => width > 0);
}
