// y = max(x, 0)^2 over elements [from, to)
export function relu2(x: usize, y: usize, from: i32, to: i32): void {
  const zero = f32x4.splat(0);
  let i = from;
  for (; i + 4 <= to; i += 4) {
    const at = (<usize>i) << 2;
    const v = f32x4.max(v128.load(x + at), zero);
    v128.store(y + at, f32x4.mul(v, v));
  }
  for (; i < to; i++) {
    const at = (<usize>i) << 2;
    const v = max(load<f32>(x + at), 0);
    store<f32>(y + at, v * v);
  }
}
