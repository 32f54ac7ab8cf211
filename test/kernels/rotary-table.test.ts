/** The tables of rotary positions, compared with those of Transformers (fixtures/generate/rotary.py). */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type RotaryScaling, type RotarySpec, rotaryTable } from "../../kernels/rotary-table.ts";

interface Recorded {
  readonly rotary: number;
  readonly theta: number;
  readonly magnitude: number;
  readonly scaling: RotaryScaling;
  /** for each position cosines and sines, times the magnitude, rounded to ten decimals */
  readonly rows: readonly (readonly number[])[];
}

const file = new URL("../../fixtures/rotary/tables.json", import.meta.url);
const { positions, tables } = JSON.parse(readFileSync(file, "utf8")) as {
  readonly positions: readonly number[];
  readonly tables: Readonly<Record<string, Recorded>>;
};

const specOf = ({ rotary, theta, scaling, magnitude }: Recorded): RotarySpec => ({
  ...{ rotary, theta },
  scaling: scaling.kind === "yarn" ? { ...scaling, magnitude } : scaling,
});

/** The largest difference from the recorded rows. */
function differenceOf(spec: RotarySpec, { rows }: Recorded): number {
  const differences = positions.flatMap((position, i) => {
    const row = rotaryTable(spec, position, 1);
    expect(row.length).toBe(rows[i]!.length);
    return rows[i]!.map((value, j) => Math.abs(row[j]! - value));
  });
  return Math.max(...differences);
}

describe.each(Object.entries(tables))("%s", (_, recorded) => {
  // One rounding to F32, and the last decimal; 1e-9 for an angle of 131071 radians, whose error in F64 is 1.5e-11.
  const limit = recorded.magnitude * 2 ** -24 + 1e-9;
  const spec = specOf(recorded);

  it("equals the table of Transformers", () => {
    expect(differenceOf(spec, recorded)).toBeLessThanOrEqual(limit);
  });

  it("has the rows of the positions from the first", () => {
    const whole = rotaryTable(spec, 0, 20);
    expect(rotaryTable(spec, 7, 13)).toEqual(whole.slice(7 * spec.rotary));
  });
});

const scalings = Object.values(tables).map((recorded) => specOf(recorded).scaling);
const keysOf = new Map(scalings.map((scaling) => [scaling.kind, Object.keys(scaling)]));
const numbers = [...keysOf].flatMap(([kind, keys]) =>
  keys.filter((key) => key !== "kind").map((key) => [kind, key] as const),
);

it.each(numbers)("another number changes some table: %s, %s", (kind, key) => {
  const differences = Object.values(tables).map((recorded) => {
    const { scaling, ...spec } = specOf(recorded);
    if (scaling.kind !== kind) return 0;
    const value: unknown = { ...scaling }[key as "kind"];
    const other = typeof value === "number" ? 1.3 * value : !value;
    return differenceOf({ ...spec, scaling: { ...scaling, [key]: other } as RotaryScaling }, recorded);
  });
  expect(Math.max(...differences)).toBeGreaterThan(1e-6);
});
