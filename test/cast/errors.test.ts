/** Errors of casts and clipped elements, by the kernel and by plain sums over values that the definitions decode. */
import { beforeAll, expect, it } from "vitest";
import { type Cast, CLIPPED_FROM, NON_FINITE } from "../../src/cast/cast.ts";
import { widthOf } from "../../src/core/dtype.ts";
import { bitsOfF32, encode, f32OfBits, widen } from "../../src/core/float.ts";
import { arenaOf, everyHalf, seeded } from "../support/cast/arena.ts";
import type { Arena } from "../support/cast/tensor.ts";

const TYPES = ["F32", "BF16", "F16", "F8_E4M3", "F8_E5M2"] as const;
const [SCALE, SOURCE_SCALE] = [Math.fround(0.0123), Math.fround(3.7)];

let arena: Arena;
beforeAll(async () => {
  arena = await arenaOf(2 * 1024 * 1024);
});

/** Puts both runs at odd addresses, and sums their errors. */
function errorsOf(cast: Cast, a: Uint8Array, b: Uint8Array, columns: number): Float64Array {
  const { caster, memory, at } = arena;
  const toAt = at + 1 + a.byteLength;
  new Uint8Array(memory.buffer, at + 1, a.byteLength).set(a);
  new Uint8Array(memory.buffer, toAt, b.byteLength).set(b);
  return caster.errors(cast, at + 1, toAt, a.byteLength / widthOf(cast.from), columns);
}

/** The same in F64, over values as readers compute them. */
function expectedErrors(
  { from, to, scale, sourceScale }: Cast,
  a: Uint8Array,
  b: Uint8Array,
  columns: number,
) {
  const [weights, values] = [widen(from, a), widen(to, b)];
  const sums = new Float64Array((2 * weights.length) / columns);
  for (let i = 0; i < weights.length; i++) {
    const [w, v] = [Math.fround(weights[i]! * (sourceScale ?? 1)), Math.fround(values[i]! * (scale ?? 1))];
    const row = 2 * Math.floor(i / columns);
    sums[row]! += (w - v) ** 2;
    sums[row + 1]! += w * w;
  }
  return sums;
}

function expectClose(found: Float64Array, expected: Float64Array): void {
  expect(found).toHaveLength(expected.length);
  const bad = expected.findIndex((sum, i) => !(Math.abs(found[i]! - sum) <= 2e-6 * sum));
  if (bad >= 0) expect.fail(`sum ${bad} is ${found[bad]}, not ${expected[bad]}`);
}

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer);

it.each(TYPES.flatMap((from) => TYPES.map((to) => [from, to] as const)))("%s to %s", (from, to) => {
  const scaleFor = (dtype: string, scale: number) => (dtype.startsWith("F8") ? scale : null);
  const cast = { from, to, scale: scaleFor(to, SCALE), sourceScale: scaleFor(from, SOURCE_SCALE) };
  const random = seeded(7);
  // rows with a tail of each length, and rows that are 2^-30 of the others
  for (const columns of [1, 7, 8, 67, 130]) {
    const rows = columns === 8 ? 600 : 20; // the kernel takes 512 in a call
    const values = Float32Array.from({ length: rows * columns }, (_, i) => {
      const size = Math.floor(i / columns) % 5 === 3 ? 2 ** -30 : 1;
      return (random() + random() - 1) * size;
    });
    const { caster, memory, at } = arena;
    const first = at + 1;
    const size = widthOf(from) * values.length;
    new Uint8Array(memory.buffer, first + size, 4 * values.length).set(bytesOf(values));
    caster.cast("F32", from, cast.sourceScale, null, first + size, first, values.length);
    const a = new Uint8Array(memory.buffer, first, size).slice();
    caster.cast(from, to, cast.scale, cast.sourceScale, first, first + size, values.length);
    const b = new Uint8Array(memory.buffer, first + size, widthOf(to) * values.length).slice();
    expectClose(errorsOf(cast, a, b, columns), expectedErrors(cast, a, b, columns));
  }
});

it("every number of F16 and of E4M3, and BF16 of 120 binades, against 0", () => {
  const none = { scale: null, sourceScale: null };
  for (const [from, least, infinity] of [
    ["BF16", 68 << 7, 188 << 7],
    ["F16", 0, NON_FINITE.F16],
  ] as const) {
    const all = new Uint16Array(everyHalf.slice().buffer);
    const halves = all.filter((bits) => (bits & 0x7fff) >= least && (bits & 0x7fff) < infinity);
    const zeros = new Uint8Array(halves.length);
    const a = new Uint8Array(halves.buffer);
    const cast = { from, to: "F8_E4M3", ...none } as const;
    expectClose(errorsOf(cast, a, zeros, 1), expectedErrors(cast, a, zeros, 1));
  }
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code).filter((code) => (code & 0x7f) !== 0x7f);
  const cast = { from: "F8_E4M3", to: "F8_E5M2", ...none } as const;
  expectClose(
    errorsOf(cast, codes, new Uint8Array(codes.length), 1),
    expectedErrors(cast, codes, new Uint8Array(codes.length), 1),
  );
});

it("adds nothing for equal infinities and NaNs, and is not finite where one side only is", () => {
  const cast = { from: "F32", to: "F32", scale: null, sourceScale: null } as const;
  const a = Float32Array.of(1, Infinity, NaN, 2, 1, Infinity, 2, 2, 1, NaN, 2, 2, 1, 2, 3, 4);
  const b = Float32Array.of(1, Infinity, NaN, 1, 1, -Infinity, 2, 2, 1, 1, 2, 2, 1, NaN, 3, 4);
  const sums = errorsOf(cast, bytesOf(a), bytesOf(b), 4);
  expect([...sums.subarray(0, 2)]).toEqual([1, 5]);
  for (const row of [1, 2, 3]) expect(Number.isFinite(sums[2 * row])).toBe(false);
});

it.each(["F8_E4M3", "F8_E5M2", "F16", "BF16"] as const)(
  "what %s clips begins where it has no numbers",
  (to) => {
    const [first, before] = [CLIPPED_FROM[to], f32OfBits(bitsOfF32(CLIPPED_FROM[to]) - 1)];
    expect(encode(to, first)).toBeGreaterThanOrEqual(NON_FINITE[to]);
    expect(encode(to, before)).toBeLessThan(NON_FINITE[to]);
  },
);

it("counts the finite elements that are clipped, in every source type", () => {
  for (const from of TYPES) {
    const { caster, memory, at } = arena;
    const scale = from.startsWith("F8") ? 2 : null;
    const values = Float32Array.of(0, -930, 928, 1000, 900, -4e4, Infinity, NaN, 896, 448);
    const stored = values.map((value) => value / (scale ?? 1));
    new Uint8Array(memory.buffer, at + 64, stored.byteLength).set(bytesOf(stored));
    caster.cast("F32", from, null, null, at + 64, at, stored.length);
    const held = widen(from, new Uint8Array(memory.buffer, at, widthOf(from) * stored.length).slice());
    const clipped = held.filter((value) => {
      const quotient = Math.abs(value * (scale ?? 1)) / 1.5;
      return quotient > 464 && quotient < Infinity;
    }).length;
    const cast = { from, to: "F8_E4M3", scale: 1.5, sourceScale: scale } as const;
    expect(caster.clipped(cast, at, stored.length), from).toBe(clipped);
    expect(clipped).toBeGreaterThan(0);
  }
});
