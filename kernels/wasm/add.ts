// out = a + b over elements [from, to); out may be a or b
import { loadPart, storePart } from "./lanes";

export function add(a: usize, b: usize, out: usize, from: i32, to: i32): void {
  for (let i = from; i < to; i += 4) {
    const at = (<usize>i) << 2;
    storePart(out + at, f32x4.add(loadPart(a + at, to - i), loadPart(b + at, to - i)), to - i);
  }
}
