// The Mamba-2 scan as its recurrence, heads [from, to), from zeros (the kernel ssd) or from a state (ssd-step):
//   delta = clamp(softplus(dt + dt_bias)), S = exp(-delta exp(A_log)) S + (delta x) outer B, y = S C + D x
import { exp, softplus } from "./elementary";
import { loadPart, offset, storePart, sumLanes } from "./lanes";

/** One step of one row of the state; returns its product with C. `bytes`: length of b, c and s, whole vectors. */
@inline
function step(s: usize, b: usize, c: usize, bytes: usize, decay: f32, input: f32): f32 {
  const keep = f32x4.splat(decay);
  const add = f32x4.splat(input);
  let sum = f32x4.splat(0);
  let i: usize = 0;
  do {
    const next = f32x4.add(f32x4.mul(keep, v128.load(s + i)), f32x4.mul(add, v128.load(b + i)));
    v128.store(s + i, next);
    sum = f32x4.add(sum, f32x4.mul(next, v128.load(c + i)));
    i += 16;
  } while (i < bytes);
  return sumLanes(sum);
}

/**
 * before: the state [heads, headDim, state] at the start; 0 for a state of zeros
 *
 * out: y [tokens, heads, headDim]; then, unless `before` is 0, the state after the last token
 *
 * scratch: B and C of one token and the state [headDim], each row padded with zeros to whole vectors
 */
export function scan(
  tokens: i32,
  heads: i32,
  headDim: i32,
  groups: i32,
  state: i32,
  dtMin: f32,
  dtMax: f32,
  before: usize,
  x: usize,
  b: usize,
  c: usize,
  dt: usize,
  aLog: usize,
  d: usize,
  dtBias: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const row = offset((state + 3) & ~3);
  const bRow = scratch;
  const cRow = scratch + row;
  const states = cRow + row;
  const after = out + ((<usize>(tokens * heads * headDim)) << 2);
  for (let head = from; head < to; head++) {
    const group = head / (heads / groups);
    const a = -exp(load<f32>(aLog + offset(head)));
    const skip = load<f32>(d + offset(head));
    const first = offset(head * headDim * state);
    for (let i = 0; i < headDim; i++) {
      for (let n = 0; n < state; n += 4) {
        const part = before == 0 ? f32x4.splat(0) : loadPart(before + first + offset(i * state + n), state - n);
        v128.store(states + <usize>i * row + offset(n), part);
      }
    }
    for (let t = 0; t < tokens; t++) {
      const raw = load<f32>(dt + offset(t * heads + head)) + load<f32>(dtBias + offset(head));
      const delta = min(max(softplus(raw), dtMin), dtMax);
      const decay = exp(delta * a);
      const stream = offset((t * groups + group) * state);
      for (let i = 0; i < state; i += 4) {
        v128.store(bRow + offset(i), loadPart(b + stream + offset(i), state - i));
        v128.store(cRow + offset(i), loadPart(c + stream + offset(i), state - i));
      }
      let i = 0;
      do {
        const element = offset((t * heads + head) * headDim + i);
        const input = load<f32>(x + element);
        const y = step(states + <usize>i * row, bRow, cRow, row, decay, delta * input);
        store<f32>(out + element, y + skip * input);
      } while (++i < headDim);
    }
    for (let i = 0; i < headDim && before != 0; i++) {
      for (let n = 0; n < state; n += 4) {
        storePart(
          after + first + offset(i * state + n),
          v128.load(states + <usize>i * row + offset(n)),
          state - n,
        );
      }
    }
  }
}
