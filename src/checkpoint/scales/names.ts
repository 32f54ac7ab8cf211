/** Names of scale tensors. */

/** `a.b` of `a.b.weight` and `a.b.input_scale`. */
export function moduleOf(name: string): string {
  return name.slice(0, name.lastIndexOf("."));
}

/** Whether a scale belongs to the KV cache of a layer. */
export function isCacheScale(name: string): boolean {
  return /\.(k|v|kv)_scale$/.test(name);
}
