// Causal attention with grouped keys and values; item = head * tokens + query. Memory is one row of scores.
import { exp4 } from "./elementary";
import { dot, loadPart, storePart, sumLanes } from "./lanes";

/** scratch: `tokens` floats, rounded up to whole vectors */
export function attention(
  tokens: i32,
  heads: i32,
  kvHeads: i32,
  dim: i32,
  q: usize,
  k: usize,
  v: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const qStep = (<usize>(heads * dim)) << 2;
  const kvStep = (<usize>(kvHeads * dim)) << 2;
  const scale: f32 = 1 / sqrt<f32>(<f32>dim);
  for (let item = from; item < to; item++) {
    const head = item / tokens;
    const t = item % tokens;
    const mine = <usize>t * qStep + ((<usize>(head * dim)) << 2);
    const shared = (<usize>((head / (heads / kvHeads)) * dim)) << 2;
    let peak = -f32.MAX_VALUE;
    for (let s = 0; s <= t; s++) {
      const score = dot(q + mine, k + <usize>s * kvStep + shared, dim) * scale;
      store<f32>(scratch + ((<usize>s) << 2), score);
      peak = max(peak, score);
    }
    const sum = exponentials(scratch, t + 1, peak);
    for (let i = 0; i < dim; i += 4) {
      let mix = f32x4.splat(0);
      let at = v + shared + ((<usize>i) << 2);
      for (let s = 0; s <= t; s++, at += kvStep) {
        mix = f32x4.add(
          mix,
          f32x4.mul(v128.load32_splat(scratch + ((<usize>s) << 2)), loadPart(at, dim - i)),
        );
      }
      storePart(out + mine + ((<usize>i) << 2), f32x4.div(mix, f32x4.splat(sum)), dim - i);
    }
  }
}

/** Replaces `count` scores by exp(score - peak) and returns their sum. */
function exponentials(scores: usize, count: i32, peak: f32): f32 {
  for (let i = count; i & 3; i++) store<f32>(scores + ((<usize>i) << 2), -f32.MAX_VALUE);
  let sum = f32x4.splat(0);
  let i = 0;
  do {
    const at = scores + ((<usize>i) << 2);
    const e = exp4(f32x4.sub(v128.load(at), f32x4.splat(peak)));
    v128.store(at, e);
    sum = f32x4.add(sum, e);
    i += 4;
  } while (i < count);
  return sumLanes(sum);
}
