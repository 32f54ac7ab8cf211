// rms-norm of rows [from, to): see normalize
import { normalize } from "./normalize";

export function rmsNorm(width: i32, eps: f64, x: usize, gain: usize, out: usize, from: i32, to: i32): void {
  for (let t = from; t < to; t++) {
    const at = (<usize>t * <usize>width) << 2;
    normalize(x + at, gain, out + at, width, eps);
  }
}
