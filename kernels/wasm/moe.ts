// Mixture-of-experts kernels: a router scores, chooses and weighs experts; `mix` sums rows with weights.
import { exp, exp4, sigmoid, sigmoid4 } from "./elementary";
import { loadPart, offset, storePart, sumLanes } from "./lanes";

/** scores = sigmoid(logits) + correction, for tokens [from, to) */
export function routerScore(
  experts: i32,
  logits: usize,
  correction: usize,
  scores: usize,
  from: i32,
  to: i32,
): void {
  for (let t = from; t < to; t++) {
    const row = (<usize>t * <usize>experts) << 2;
    for (let e = 0; e < experts; e += 4) {
      const at = (<usize>e) << 2;
      const score = sigmoid4(loadPart(logits + row + at, experts - e));
      storePart(scores + row + at, f32x4.add(score, loadPart(correction + at, experts - e)), experts - e);
    }
  }
}

/** NaN ranks above every number. */
@inline
function rank(score: usize): f32 {
  const value = load<f32>(score);
  return value == value ? value : Infinity;
}

/** The sum of the two largest of `count` scores. */
function groupScore(scores: usize, count: i32): f32 {
  let first: f32 = -Infinity;
  let second: f32 = -Infinity;
  for (let i = 0; i < count; i++) {
    const value = rank(scores + offset(i));
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) second = value;
  }
  return first + second;
}

/** Writes 1 for the `keep` best of `groups` scores and 0 for the others; of two equal scores the earlier is better. */
function keepBest(scores: usize, kept: usize, groups: i32, keep: i32): void {
  for (let g = 0; g < groups; g++) {
    const score = load<f32>(scores + offset(g));
    let better = 0;
    for (let other = 0; other < groups; other++) {
      const rival = load<f32>(scores + offset(other));
      if (rival > score || (rival == score && other < g)) better++;
    }
    store<i32>(kept + offset(g), better < keep ? 1 : 0);
  }
}

/** Inserts `expert` into `count` expert numbers in ascending order. */
function insert(chosen: usize, count: i32, expert: i32): void {
  let k = count;
  for (; k > 0 && load<f32>(chosen + offset(k - 1)) > <f32>expert; k--) {
    store<f32>(chosen + offset(k), load<f32>(chosen + offset(k - 1)));
  }
  store<f32>(chosen + offset(k), <f32>expert);
}

/**
 * The chosen experts of tokens [from, to), in ascending order. Scores are compared, and the two highest of a group
 * added.
 *
 * scratch: a score and a flag for each group
 */
export function routerChoose(
  experts: i32,
  topK: i32,
  groups: i32,
  topGroups: i32,
  scores: usize,
  chosen: usize,
  scratch: usize,
  from: i32,
  to: i32,
): void {
  const size = experts / groups;
  const kept = scratch + offset(groups);
  for (let t = from; t < to; t++) {
    const row = scores + <usize>t * offset(experts);
    for (let g = 0; g < groups; g++) store<f32>(scratch + offset(g), groupScore(row + offset(g * size), size));
    keepBest(scratch, kept, groups, topGroups);
    // Each turn finds the next expert after the last chosen one, in the order by score, then by index.
    let last: f32 = Infinity;
    let lastExpert = -1;
    for (let k = 0; k < topK; k++) {
      let best: f32 = -Infinity;
      let expert = -1;
      for (let e = 0; e < experts; e++) {
        if (load<i32>(kept + offset(e / size)) == 0) continue;
        const value = rank(row + offset(e));
        if (value > last || (value == last && e <= lastExpert)) continue;
        if (expert < 0 || value > best) {
          best = value;
          expert = e;
        }
      }
      insert(chosen + <usize>t * offset(topK), k, expert);
      last = best;
      lastExpert = expert;
    }
  }
}

/**
 * Weights of the chosen experts of tokens [from, to): the sigmoid of their logits, divided by their sum where
 * `normalise` is set, times `scale`.
 */
export function routerWeigh(
  experts: i32,
  topK: i32,
  normalise: i32,
  scale: f32,
  logits: usize,
  chosen: usize,
  weights: usize,
  from: i32,
  to: i32,
): void {
  for (let t = from; t < to; t++) {
    const first = t * topK;
    let sum: f32 = 0;
    for (let k = first; k < first + topK; k++) {
      const score = sigmoid(load<f32>(logits + offset(t * experts + <i32>load<f32>(chosen + offset(k)))));
      sum += score;
      store<f32>(weights + offset(k), score);
    }
    const divisor: f32 = normalise ? sum + 1e-20 : 1;
    for (let k = first; k < first + topK; k++) {
      store<f32>(weights + offset(k), (load<f32>(weights + offset(k)) / divisor) * scale);
    }
  }
}

/**
 * Weights of the chosen experts of tokens [from, to): the softmax over the logits of the chosen experts, or of all
 * experts if `all` is set.
 */
export function routerSoftmax(
  experts: i32,
  topK: i32,
  all: i32,
  route: usize,
  chosen: usize,
  weights: usize,
  from: i32,
  to: i32,
): void {
  for (let t = from; t < to; t++) {
    const logits = route + <usize>t * offset(experts);
    const first = <usize>t * offset(topK);
    const own = weights + first;
    for (let k = 0; k < topK; k++) {
      store<f32>(own + offset(k), load<f32>(logits + offset(<i32>load<f32>(chosen + first + offset(k)))));
    }
    const terms = all ? logits : own;
    const count = all ? experts : topK;
    const peak = largest(terms, count);
    const sum = sumOfPowers(terms, count, peak);
    for (let k = 0; k < topK; k++) {
      store<f32>(own + offset(k), exp(load<f32>(own + offset(k)) - peak) / sum);
    }
  }
}

function largest(at: usize, count: i32): f32 {
  let most = load<f32>(at);
  for (let i = 1; i < count; i++) most = max(most, load<f32>(at + offset(i)));
  return most;
}

/** The sum of e^(x - peak) over `count` floats. */
function sumOfPowers(at: usize, count: i32, peak: f32): f32 {
  let lanes = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    lanes = f32x4.add(lanes, exp4(f32x4.sub(v128.load(at + offset(i)), f32x4.splat(peak))));
  }
  let sum = sumLanes(lanes);
  for (; i < count; i++) sum += exp(load<f32>(at + offset(i)) - peak);
  return sum;
}

/** out[r] = sum over j of weight[r, j] * x[source[r, j]], for rows [from, to), added in the order of j */
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
    const row = out + <usize>r * offset(width);
    for (let j = 0; j < terms; j++) {
      const chosen = <usize>load<f32>(source + offset(r * terms + j));
      const factor = f32x4.splat(load<f32>(weight + offset(r * terms + j)));
      const sourceRow = x + chosen * offset(width);
      for (let i = 0; i < width; i += 4) {
        let sum = f32x4.mul(factor, loadPart(sourceRow + offset(i), width - i));
        if (j > 0) sum = f32x4.add(loadPart(row + offset(i), width - i), sum);
        storePart(row + offset(i), sum, width - i);
      }
    }
  }
}
