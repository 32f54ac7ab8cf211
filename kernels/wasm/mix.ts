// out[r] = sum over j of weight[r, j] * x[source[r, j]], rows [from, to), terms in their order
import { loadPart, storePart } from "./lanes";

@inline
function at(index: i32): usize {
  return (<usize>index) << 2;
}

export function mix(
  terms: i32,
  width: i32,
  x: usize,
  source: usize,
  weight: usize,
  out: usize,
  from: i32,
  to: i32,
): void {
  for (let r = from; r < to; r++) {
    const row = out + <usize>r * at(width);
    for (let j = 0; j < terms; j++) {
      const source_ = <usize>load<f32>(source + at(r * terms + j));
      const factor = f32x4.splat(load<f32>(weight + at(r * terms + j)));
      const theirs = x + source_ * at(width);
      for (let i = 0; i < width; i += 4) {
        let sum = f32x4.mul(factor, loadPart(theirs + at(i), width - i));
        if (j > 0) sum = f32x4.add(loadPart(row + at(i), width - i), sum);
        storePart(row + at(i), sum, width - i);
      }
    }
  }
}
