// out[at + i] = x[first + i] for i of [from, to)

export function copy(first: i32, at: i32, x: usize, out: usize, from: i32, to: i32): void {
  memory.copy(
    out + ((<usize>(at + from)) << 2),
    x + ((<usize>(first + from)) << 2),
    (<usize>(to - from)) << 2,
  );
}
