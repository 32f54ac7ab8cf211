// The Mamba-2 scan from the state that earlier tokens left; out: y [tokens, heads, headDim], then the state after.
import { scan } from "./scan";

export function ssdStep(
  tokens: i32,
  heads: i32,
  headDim: i32,
  groups: i32,
  state: i32,
  dtMin: f32,
  dtMax: f32,
  x: usize,
  b: usize,
  c: usize,
  dt: usize,
  aLog: usize,
  d: usize,
  dtBias: usize,
  before: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const after = out + ((<usize>(tokens * heads * headDim)) << 2);
  scan(
    tokens,
    heads,
    headDim,
    groups,
    state,
    dtMin,
    dtMax,
    x,
    b,
    c,
    dt,
    aLog,
    d,
    dtBias,
    before,
    after,
    out,
    scratch,
    from,
    to,
  );
}
