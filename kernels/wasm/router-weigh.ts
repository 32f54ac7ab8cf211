// weights of the chosen experts, tokens [from, to): sigmoid of their logits, made to sum to one where asked, scaled
import { sigmoid } from "./elementary";

@inline
function at(index: i32): usize {
  return (<usize>index) << 2;
}

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
      const score = sigmoid(load<f32>(logits + at(t * experts + <i32>load<f32>(chosen + at(k)))));
      sum += score;
      store<f32>(weights + at(k), score);
    }
    const divisor: f32 = normalise ? sum + 1e-20 : 1;
    for (let k = first; k < first + topK; k++) {
      store<f32>(weights + at(k), (load<f32>(weights + at(k)) / divisor) * scale);
    }
  }
}
