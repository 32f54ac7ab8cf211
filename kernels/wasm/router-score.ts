// scores = sigmoid(logits) + correction, tokens [from, to)
import { sigmoid4 } from "./elementary";
import { loadPart, storePart } from "./lanes";

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
