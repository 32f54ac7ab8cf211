// The chosen experts of tokens [from, to), ascending. Scores are only compared, and added in pairs for groups.

@inline
function at(index: i32): usize {
  return (<usize>index) << 2;
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
    const value = rank(scores + at(i));
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) second = value;
  }
  return first + second;
}

/** Writes 1 for the `keep` best of `groups` scores and 0 for the others; of equals the earlier is better. */
function keepBest(scores: usize, kept: usize, groups: i32, keep: i32): void {
  for (let g = 0; g < groups; g++) {
    const mine = load<f32>(scores + at(g));
    let better = 0;
    for (let other = 0; other < groups; other++) {
      const theirs = load<f32>(scores + at(other));
      if (theirs > mine || (theirs == mine && other < g)) better++;
    }
    store<i32>(kept + at(g), better < keep ? 1 : 0);
  }
}

/** Puts `expert` into its place among `count` ascending ones. */
function insert(chosen: usize, count: i32, expert: i32): void {
  let k = count;
  for (; k > 0 && load<f32>(chosen + at(k - 1)) > <f32>expert; k--) {
    store<f32>(chosen + at(k), load<f32>(chosen + at(k - 1)));
  }
  store<f32>(chosen + at(k), <f32>expert);
}

/** scratch: a score and a flag a group */
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
  const kept = scratch + at(groups);
  for (let t = from; t < to; t++) {
    const row = scores + <usize>t * at(experts);
    for (let g = 0; g < groups; g++) store<f32>(scratch + at(g), groupScore(row + at(g * size), size));
    keepBest(scratch, kept, groups, topGroups);
    // The next best each time: what comes after the last pick in the order by score, then by index.
    let last: f32 = Infinity;
    let lastExpert = -1;
    for (let k = 0; k < topK; k++) {
      let best: f32 = -Infinity;
      let expert = -1;
      for (let e = 0; e < experts; e++) {
        if (load<i32>(kept + at(e / size)) == 0) continue;
        const value = rank(row + at(e));
        if (value > last || (value == last && e <= lastExpert)) continue;
        if (expert < 0 || value > best) {
          best = value;
          expert = e;
        }
      }
      insert(chosen + <usize>t * at(topK), k, expert);
      last = best;
      lastExpert = expert;
    }
  }
}
