/** Names of scale tensors. */

/** `a.b` of `a.b.weight` and `a.b.input_scale`. */
export function moduleOf(name: string): string {
  return name.slice(0, name.lastIndexOf("."));
}
