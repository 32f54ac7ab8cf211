// Causal depthwise convolution, bias and SiLU. An item is four neighbouring channels, over all tokens.
import { silu4 } from "./elementary";
import { loadPart, storePart } from "./lanes";

/** scratch: `kernel` vectors, the taps of the item's four channels, oldest token first */
export function conv1d(
  tokens: i32,
  width: i32,
  kernel: i32,
  x: usize,
  taps: usize,
  bias: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const step = (<usize>width) << 2;
  for (let item = from; item < to; item++) {
    const channel = item << 2;
    const lanes = min(4, width - channel);
    for (let lane = 0; lane < 4; lane++) {
      for (let j = 0; j < kernel; j++) {
        const tap = lane < lanes ? load<f32>(taps + ((<usize>((channel + lane) * kernel + j)) << 2)) : 0;
        store<f32>(scratch + ((<usize>((j << 2) + lane)) << 2), tap);
      }
    }
    const at = (<usize>channel) << 2;
    const start = loadPart(bias + at, lanes);
    let t = 0;
    do {
      let sum = start;
      for (let j = max(0, kernel - 1 - t); j < kernel; j++) {
        const v = loadPart(x + <usize>(t - (kernel - 1) + j) * step + at, lanes);
        sum = f32x4.add(sum, f32x4.mul(v, v128.load(scratch + ((<usize>j) << 4))));
      }
      storePart(out + <usize>t * step + at, silu4(sum), lanes);
    } while (++t < tokens);
  }
}
