/**
 * Rotary positions (RoPE; Su et al., arXiv 2104.09864): turns pairs of elements of each head by the angles of a table.
 * The host computes the table (`kernels/rotary-table.ts`), because the angle of a late position does not fit F32. `out`
 * may be `x`.
 */
import { type KernelDefinition, ROUNDING } from "../kernel.ts";

export interface RopeParams {
  readonly tokens: number;
  readonly heads: number;
  /** width of one head */
  readonly dim: number;
  /** how many elements of each head are turned, an even number; the others stay as they are */
  readonly rotary: number;
  /** whether a pair is (2 i, 2 i + 1) and not (i, i + rotary / 2) */
  readonly interleaved: boolean;
}

export const ropeDefinition: KernelDefinition<RopeParams> = {
  id: "rope",
  inputs: ({ tokens, heads, dim, rotary }) => [
    { name: "x", length: tokens * heads * dim, dtype: "F32", hard: "wide" }, // [T, heads, dim]
    { name: "table", length: tokens * rotary, dtype: "F32" }, // [T, rotary]: the cosines of the pairs, then the sines
  ],
  output: ({ tokens, heads, dim }) => ({ name: "out", length: tokens * heads * dim, dtype: "F32" }),
  cases: [
    { tokens: 1, heads: 1, dim: 2, rotary: 2, interleaved: false },
    { tokens: 3, heads: 2, dim: 6, rotary: 6, interleaved: true },
    { tokens: 5, heads: 3, dim: 16, rotary: 8, interleaved: false },
    { tokens: 4, heads: 2, dim: 27, rotary: 22, interleaved: false },
    { tokens: 7, heads: 2, dim: 25, rotary: 18, interleaved: true },
    { tokens: 2, heads: 4, dim: 64, rotary: 64, interleaved: false },
  ],
  // Two products and their sum: one rounding of |x1 cos| + |x2 sin|, and one of the result. The first is at most the
  // length of (x1, x2) times that of (cos, sin), and this product is the length of the turned pair, at most sqrt(2)
  // times its larger element.
  bound: () => (1 + Math.SQRT2) * ROUNDING,
  oracle({ heads, dim, rotary, interleaved }, [x, table], out) {
    const half = rotary / 2;
    for (let i = 0; i < out.length; i++) {
      const d = i % dim;
      const at = Math.floor(i / (heads * dim)) * rotary + (interleaved ? d >> 1 : d % half);
      const [isSecond, step] = interleaved ? [d % 2 === 1, 1] : [d >= half, half];
      if (d >= rotary) out[i] = x![i]!;
      else if (isSecond) out[i] = x![i]! * table![at]! + x![i - step]! * table![at + half]!;
      else out[i] = x![i]! * table![at]! - x![i + step]! * table![at + half]!;
    }
  },
  wasm: {
    fn: "rope",
    scalars: ({ heads, dim, rotary, interleaved }) => [heads, dim, rotary, interleaved ? 1 : 0],
    items: ({ tokens, heads }) => tokens * heads,
    work: ({ tokens, heads, dim }) => 2 * tokens * heads * dim,
  },
  benchmark: {
    p: { tokens: 64, heads: 32, dim: 128, rotary: 128, interleaved: false },
    work: 8 * 64 * 32 * 128,
    unit: "GB/s",
  },
};
