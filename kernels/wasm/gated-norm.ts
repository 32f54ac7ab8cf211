// g = y * silu(z), then the norm of each run of `run` channels; items are runs, `groups` of them a token
import { silu4 } from "./elementary";
import { loadPart, storePart } from "./lanes";
import { normalize } from "./normalize";

export function gatedNorm(
  run: i32,
  groups: i32,
  eps: f64,
  y: usize,
  z: usize,
  gain: usize,
  out: usize,
  from: i32,
  to: i32,
): void {
  for (let item = from; item < to; item++) {
    const first = (<usize>item * <usize>run) << 2;
    let i = 0;
    do {
      const at = first + ((<usize>i) << 2);
      const g = f32x4.mul(loadPart(y + at, run - i), silu4(loadPart(z + at, run - i)));
      storePart(out + at, g, run - i);
      i += 4;
    } while (i < run);
    const group = (<usize>(item % groups) * <usize>run) << 2;
    normalize(out + first, gain + group, out + first, run, eps);
  }
}
