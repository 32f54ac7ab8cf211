/** `f16Bits(codes)`: F32 bits of four F16 numbers. For subnormals it subtracts two normal numbers, which is exact. */
export const F16_WGSL = `
fn f16Bits(code: vec4u) -> vec4u {
  let magnitude = (code & vec4u(0x7fffu)) << vec4u(13u);
  let sign = (code & vec4u(0x8000u)) << vec4u(16u);
  let bias = vec4u(112u << 23u);
  let normal = magnitude + bias + select(vec4u(0u), bias, magnitude >= vec4u(31u << 23u));
  let tiny = bitcast<vec4f>(magnitude + vec4u(113u << 23u)) - vec4f(0x1p-14);
  return sign | select(normal, bitcast<vec4u>(tiny), magnitude < vec4u(1u << 23u));
}`;
