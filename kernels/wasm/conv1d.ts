// Causal depthwise convolution, bias and SiLU. An item is sixteen neighbouring channels (one cache line) of all tokens.
// The first `past` rows of x [past + tokens, width] are inputs only: they have no outputs.
import { silu4 } from "./elementary";
import { loadPart, offset, storePart } from "./lanes";

const CHANNELS = 16;

/** scratch: the taps of the item's channels [kernel, 16], the tap of the oldest token first */
export function conv1d(
  tokens: i32,
  past: i32,
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
  const step = offset(width);
  for (let item = from; item < to; item++) {
    const channel = item * CHANNELS;
    const channels = min(CHANNELS, width - channel);
    for (let c = 0; c < channels; c++) {
      for (let j = 0; j < kernel; j++) {
        store<f32>(scratch + offset(j * CHANNELS + c), load<f32>(taps + offset((channel + c) * kernel + j)));
      }
    }
    for (let t = 0; t < tokens; t++) {
      const oldest = max(0, kernel - 1 - past - t);
      let c = 0;
      do {
        const first = offset(channel + c);
        let sum = loadPart(bias + first, channels - c);
        let row = x + <usize>(past + t - (kernel - 1) + oldest) * step + first;
        let j = oldest;
        do {
          const tap = v128.load(scratch + offset(j * CHANNELS + c)); // lanes beyond the last channel are not stored
          sum = f32x4.add(sum, f32x4.mul(loadPart(row, channels - c), tap));
          row += step;
        } while (++j < kernel);
        storePart(out + <usize>t * step + first, silu4(sum), channels - c);
        c += 4;
      } while (c < channels);
    }
  }
}
