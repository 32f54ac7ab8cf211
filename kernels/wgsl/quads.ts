/** Loads four neighbouring floats of an array, with zeros after the end of a row. */

/**
 * The element type of `array`, and WGSL that defines `name(at, left)`: floats [at, at + 4), with zeros after the first
 * `left` floats.
 *
 * @param aligned `at` and `left` are always multiples of four
 */
export function quadLoader(name: string, array: string, aligned: boolean): { type: string; code: string } {
  if (aligned) {
    return { type: "vec4f", code: `fn ${name}(at: u32, left: u32) -> vec4f { return ${array}[at >> 2u]; }` };
  }
  return {
    type: "f32",
    code: `
fn ${name}(at: u32, left: u32) -> vec4f {
  let four = vec4f(${array}[at], ${array}[at + 1u], ${array}[at + 2u], ${array}[at + 3u]);
  return select(vec4f(), four, vec4u(0u, 1u, 2u, 3u) < vec4u(left));
}`,
  };
}
