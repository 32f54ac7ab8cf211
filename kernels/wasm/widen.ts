// y = scale * x over elements [from, to), x as stored
import { decode, widthShift } from "./decode";
import { storePart } from "./lanes";

const CHUNK = 256;

/** scratch: 256 floats */
export function widen(dtype: i32, scale: f32, x: usize, y: usize, scratch: usize, from: i32, to: i32): void {
  const shift = widthShift(dtype);
  const factor = f32x4.splat(scale);
  for (let chunk = from; chunk < to; chunk += CHUNK) {
    const count = min(CHUNK, to - chunk);
    decode(dtype, x + ((<usize>chunk) << shift), count, scratch, 16);
    for (let i = 0; i < count; i += 4) {
      const v = f32x4.mul(v128.load(scratch + ((<usize>i) << 2)), factor);
      storePart(y + ((<usize>(chunk + i)) << 2), v, count - i);
    }
  }
}
