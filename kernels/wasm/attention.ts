// Causal attention with grouped keys and values; an item is one head. The scratch memory holds four rows of scores and
// a copy of one head's keys and values without gaps: rows at the distance of a whole token would use few cache sets.
//
// Four queries are computed together. Scores and shares have the shape [token, 4 queries]: one lane for each query.
import { exp4 } from "./elementary";
import { loadPart, mulAdd, storePart, sumLanesOfFour } from "./lanes";

/** Copies `count` floats and pads them with zeros to a multiple of eight. */
function copyRow(from: usize, to: usize, count: i32): void {
  let i = 0;
  do {
    v128.store(to, loadPart(from, count - i));
    v128.store(to, loadPart(from + 16, count - i - 4), 16);
    from += 32;
    to += 32;
    i += 8;
  } while (i < count);
}

/**
 * Scores of four queries [dim / 4, 4 queries, 4] against one key. The function is exported so that asc does not inline
 * it: V8 optimises a function for its next call, and one call of `attention` takes long.
 */
export function scoresOfOne(panel: usize, key: usize, dim: i32, scores: usize): void {
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  const end = panel + ((<usize>((dim + 3) >> 2)) << 6);
  do {
    const k = v128.load(key);
    a = mulAdd(a, v128.load(panel), k);
    b = mulAdd(b, v128.load(panel, 16), k);
    c = mulAdd(c, v128.load(panel, 32), k);
    d = mulAdd(d, v128.load(panel, 48), k);
    panel += 64;
    key += 16;
  } while (panel != end);
  v128.store(scores, sumLanesOfFour(a, b, c, d));
}

/** Scores of four queries against `count` tokens, times `scale`. */
function scoresOf(panel: usize, keys: usize, row: usize, dim: i32, count: i32, scale: f32, scores: usize): void {
  const end = scores + ((<usize>count) << 4);
  do {
    scoresOfOne(panel, keys, dim, scores);
    v128.store(scores, f32x4.mul(v128.load(scores), f32x4.splat(scale)));
    keys += row;
    scores += 16;
  } while (scores < end);
}

/**
 * Replaces `count` scores, a multiple of four, by exp(score - largest score); returns the sums, added by token mod 4
 * first.
 */
function sharesOf(scores: usize, count: i32): v128 {
  const end = scores + ((<usize>count) << 4);
  let peak = v128.load(scores);
  for (let at = scores; at < end; at += 16) peak = f32x4.pmax(v128.load(at), peak);
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  do {
    a = f32x4.add(a, shareOf(scores, peak));
    b = f32x4.add(b, shareOf(scores + 16, peak));
    c = f32x4.add(c, shareOf(scores + 32, peak));
    d = f32x4.add(d, shareOf(scores + 48, peak));
    scores += 64;
  } while (scores < end);
  return f32x4.add(f32x4.add(a, c), f32x4.add(b, d));
}

@inline
function shareOf(score: usize, peak: v128): v128 {
  const share = exp4(f32x4.sub(v128.load(score), peak));
  v128.store(score, share);
  return share;
}

/** Adds share times value of `count` tokens to the sums of four queries [4, 8]: eight elements of the values. */
function mix(shares: usize, values: usize, row: usize, count: i32, sums: usize): void {
  let a0 = v128.load(sums);
  let b0 = v128.load(sums, 16);
  let a1 = v128.load(sums, 32);
  let b1 = v128.load(sums, 48);
  let a2 = v128.load(sums, 64);
  let b2 = v128.load(sums, 80);
  let a3 = v128.load(sums, 96);
  let b3 = v128.load(sums, 112);
  const last = shares + ((<usize>(count - 1)) << 4);
  while (true) {
    let v = v128.load(values);
    let w = v128.load(values, 16);
    let share = v128.load32_splat(shares);
    a0 = mulAdd(a0, share, v);
    b0 = mulAdd(b0, share, w);
    share = v128.load32_splat(shares, 4);
    a1 = mulAdd(a1, share, v);
    b1 = mulAdd(b1, share, w);
    share = v128.load32_splat(shares, 8);
    a2 = mulAdd(a2, share, v);
    b2 = mulAdd(b2, share, w);
    share = v128.load32_splat(shares, 12);
    a3 = mulAdd(a3, share, v);
    b3 = mulAdd(b3, share, w);
    if (shares == last) break;
    values += row;
    shares += 16;
  }
  v128.store(sums, a0);
  v128.store(sums, b0, 16);
  v128.store(sums, a1, 32);
  v128.store(sums, b1, 48);
  v128.store(sums, a2, 64);
  v128.store(sums, b2, 80);
  v128.store(sums, a3, 96);
  v128.store(sums, b3, 112);
}

/** Adds share times value of tokens [from, to) to the sums of one query [8]; `shares` is its share of token 0. */
function mixOfOne(shares: usize, values: usize, row: usize, from: i32, to: i32, sums: usize): void {
  let low = v128.load(sums);
  let high = v128.load(sums, 16);
  for (let s = from; s < to; s++) {
    const share = v128.load32_splat(shares + ((<usize>s) << 4));
    const value = values + <usize>s * row;
    low = mulAdd(low, share, v128.load(value));
    high = mulAdd(high, share, v128.load(value, 16));
  }
  v128.store(sums, low);
  v128.store(sums, high, 16);
}

/** The first token that the query of token `t` sees. */
@inline
function firstSeen(t: i32, window: i32): i32 {
  return max(0, t + 1 - window);
}

/**
 * The first `past` tokens of k and v are earlier tokens. A query sees at most `window` tokens, itself included.
 *
 * scratch: a mix of four queries; their sums; their scores [past + tokens + 3 rounded up to four, 4]; the queries
 * themselves, then the head's keys and values [past + tokens, dim], each row padded with zeros to a multiple of eight
 */
export function attention(
  tokens: i32,
  past: i32,
  heads: i32,
  kvHeads: i32,
  dim: i32,
  scale: f32,
  window: i32,
  q: usize,
  k: usize,
  v: usize,
  out: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const all = past + tokens;
  const qStep = (<usize>(heads * dim)) << 2;
  const kvStep = (<usize>(kvHeads * dim)) << 2;
  const row = (<usize>((dim + 7) & ~7)) << 2;
  const sums = scratch + 128;
  const scores = sums + 16;
  const panel = scores + ((<usize>((all + 6) & ~3)) << 4);
  const keys = panel + 4 * row;
  const values = keys + <usize>all * row;
  let copied = -1;
  for (let head = from; head < to; head++) {
    const shared = head / (heads / kvHeads);
    for (let s = firstSeen(past, window); s < all && shared != copied; s++) {
      const at = <usize>s * kvStep + ((<usize>(shared * dim)) << 2);
      copyRow(k + at, keys + <usize>s * row, dim);
      copyRow(v + at, values + <usize>s * row, dim);
    }
    copied = shared;
    for (let t = 0; t < tokens; t += 4) {
      const queries = min(4, tokens - t);
      const firstQuery = <usize>t * qStep + ((<usize>(head * dim)) << 2);
      for (let j = 0; j < queries; j++) {
        // The lanes of missing queries hold old values, which are never mixed with the lanes of other queries.
        const query = q + firstQuery + <usize>j * qStep;
        for (let i = 0; i < dim; i += 4) {
          const at = panel + ((<usize>((i + j) << 2)) << 2);
          v128.store(at, loadPart(query + ((<usize>i) << 2), dim - i));
        }
      }
      const first = past + t;
      const padded = (first + 7) & ~3;
      // The shares are added from a multiple of four, so that the order does not depend on the window's start.
      const start = firstSeen(first, window);
      const padding = start & ~3;
      const startOfLast = firstSeen(first + 3, window);
      scoresOf(
        panel,
        keys + <usize>start * row,
        row,
        dim,
        first + queries - start,
        scale,
        scores + ((<usize>start) << 4),
      );
      // No query sees a token before its window or after its own.
      for (let s = padding; s < startOfLast; s++) {
        for (let j = 0; j < 4; j++) {
          if (s < firstSeen(first + j, window)) store<f32>(scores + ((<usize>((s << 2) + j)) << 2), -f32.MAX_VALUE);
        }
      }
      for (let s = 1; first + s < padded; s++) {
        for (let j = 0; j < (s < queries ? s : 4); j++) {
          store<f32>(scores + ((<usize>(((first + s) << 2) + j)) << 2), -f32.MAX_VALUE);
        }
      }
      v128.store(sums, sharesOf(scores + ((<usize>padding) << 4), padded - padding));
      // All four queries see the tokens [common, first]; each sees a few more before and after them.
      const common = min(startOfLast, first + 1);
      for (let i = 0; i < dim; i += 8) {
        const element = (<usize>i) << 2;
        for (let at = scratch; at < sums; at += 16) v128.store(at, f32x4.splat(0));
        for (let j = 0; j < queries && start < common; j++) {
          const shares = scores + ((<usize>j) << 2);
          const mixed = scratch + ((<usize>j) << 5);
          mixOfOne(shares, values + element, row, firstSeen(first + j, window), common, mixed);
        }
        if (common <= first) {
          const shares = scores + ((<usize>common) << 4);
          mix(shares, values + <usize>common * row + element, row, first + 1 - common, scratch);
        }
        for (let j = 0; j < queries; j++) {
          const shares = scores + ((<usize>j) << 2);
          const mixed = scratch + ((<usize>j) << 5);
          const from = max(first + 1, firstSeen(first + j, window));
          mixOfOne(shares, values + element, row, from, first + j + 1, mixed);
          const sum = v128.load32_splat(sums + ((<usize>j) << 2));
          const to = out + firstQuery + <usize>j * qStep + element;
          storePart(to, f32x4.div(v128.load(mixed), sum), dim - i);
          storePart(to + 16, f32x4.div(v128.load(mixed, 16), sum), dim - i - 4);
        }
      }
    }
  }
}
