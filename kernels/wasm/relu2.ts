// y = max(x, 0)^2 over elements [from, to)
import { loadPart, storePart } from "./lanes";

export function relu2(x: usize, y: usize, from: i32, to: i32): void {
  const zero = f32x4.splat(0);
  for (let i = from; i < to; i += 4) {
    const at = (<usize>i) << 2;
    const v = f32x4.max(loadPart(x + at, to - i), zero);
    storePart(y + at, f32x4.mul(v, v), to - i);
  }
}
