/** Typical mistakes in the text of a shader: the bound of the kernel must detect each of them. */
import { afterAll, describe, expect, it } from "vitest";
import { checkKernels } from "../../kernels/check.ts";
import {
  add,
  addRow,
  attention,
  conv1d,
  copy,
  gatedNorm,
  layerNorm,
  linear,
  mix,
  relu2,
  rmsNorm,
  rope,
  routerChoose,
  routerScore,
  routerSoftmax,
  routerWeigh,
  scale,
  ssd,
  ssdStep,
  swiglu,
  widen,
} from "../../kernels/index.ts";
import type { Backend, Kernel } from "../../kernels/kernel.ts";
import { gpuBackend } from "../support/kernels/software-gpu.ts";

const [plain, fast] = await Promise.all([gpuBackend(64 << 20, []), gpuBackend(64 << 20)]);
afterAll(() => Promise.all([plain, fast].map((backend) => backend[Symbol.asyncDispose]())));

interface Mutant {
  readonly kernel: Kernel;
  /** a backend whose shaders contain the text */
  readonly backend: Backend;
}

/** The kernel with the cases that `on` accepts, and with `wrong` instead of `right` in every shader. */
function mutant<P>(
  kernel: Kernel<P>,
  right: string,
  wrong: string,
  on: (p: P) => boolean,
  backend = plain,
): Mutant {
  const cases = kernel.cases.filter(on);
  const { wgsl } = kernel;
  const found = cases.some((p) =>
    wgsl.passes(p, backend.extensions).some(({ code }) => code.includes(right)),
  );
  if (!found) throw new Error(`${kernel.id} has no text "${right}"`);
  const passes = (p: P) =>
    wgsl.passes(p, backend.extensions).map((pass) => ({ ...pass, code: pass.code.replaceAll(right, wrong) }));
  return { kernel: { ...kernel, cases, wgsl: { ...wgsl, passes } } as Kernel, backend };
}

const every = () => true;
const [short, long] = [(p: { tokens: number }) => p.tokens === 7, (p: { tokens: number }) => p.tokens > 100];
const [few, many] = [(p: { tokens: number }) => p.tokens === 2, (p: { tokens: number }) => p.tokens === 19];
const ofType = (dtype: string) => (p: { dtype: string; count?: number }) =>
  p.dtype === dtype && p.count === 1022;

const ofBlocks = (dtype: string) => (p: { dtype: string; count?: number }) =>
  p.dtype === dtype && p.count === 1024;

const mutants: Readonly<Record<string, Mutant>> = {
  "add: a twice": mutant(add, "+ b[i]", "+ a[i] + 0.0 * b[i]", every),
  "add-row: no bias": mutant(addRow, "+ bias[", "+ 0.0 * bias[", every),
  "add-row: an element of the bias for each row": mutant(
    addRow,
    "bias[i % p.width]",
    "bias[i / p.width]",
    every,
  ),
  "scale: divides": mutant(scale, "* p.factor", "/ p.factor", every),
  "swiglu: up gates": mutant(swiglu, "siluOf(gate[i]) * up[i]", "siluOf(up[i]) * gate[i]", every),
  "swiglu: no gate": mutant(swiglu, "siluOf(gate[i])", "gate[i]", every),
  "swiglu: no up": mutant(swiglu, "* up[i]", "+ 0.0 * up[i]", every),
  "relu2: no relu": mutant(relu2, "x[i] < 0.0", "false", every),
  "relu2: no square": mutant(relu2, "x[i] * x[i]", "x[i]", every),
  "widen: no scale": mutant(widen, "* p.scale", "* 1.0", ofType("BF16")),
  "widen: E4M3 biased as E5M2": mutant(widen, "(120u << 23u)", "(112u << 23u)", ofType("F8_E4M3")),
  "widen: E4M3 subnormals are normal": mutant(
    widen,
    "magnitude < vec4u(1u << 23u)",
    "vec4<bool>()",
    ofType("F8_E4M3"),
  ),
  "widen: upper and lower half exchanged": mutant(
    widen,
    "(at & 1u) * 16u",
    "(1u - (at & 1u)) * 16u",
    ofType("F16"),
  ),
  "widen: nibbles exchanged": mutant(widen, "(i >> 2u) & 4u", "~(i >> 2u) & 4u", ofBlocks("Q4_0")),
  "widen: nibbles of groups exchanged": mutant(widen, "(i >> 3u) & 4u", "~(i >> 3u) & 4u", ofBlocks("Q4_K")),
  "widen: high bits of scales from the wrong place": mutant(
    widen,
    ">> vec2u(6u)",
    ">> vec2u(4u)",
    ofBlocks("Q5_K"),
  ),
  "widen: the mask of Q3_K belongs to runs of 64": mutant(
    widen,
    "wordAt(b + l), i >> 5u",
    "wordAt(b + l), i >> 6u",
    ofBlocks("Q3_K"),
  ),
  "widen: scales of Q6_K have no sign": mutant(
    widen,
    "signed(vec4u(byteAt(b + 192u + (i >> 4u)))).x",
    "byteAt(b + 192u + (i >> 4u))",
    ofBlocks("Q6_K"),
  ),
  "widen: scale and minimum exchanged": mutant(
    widen,
    "scales & 15u)) - vec4f(d.y * f32(scales >> 4u))",
    "scales >> 4u)) - vec4f(d.y * f32(scales & 15u))",
    ofBlocks("Q2_K"),
  ),
  "widen: blocks begin at whole words": mutant(
    widen,
    "if (shift == 0u) { return low; }",
    "if (shift < 32u) { return low; }",
    ofBlocks("Q8_0"),
  ),
  "rms-norm: gain is 1 + w": mutant(rmsNorm, "gain[firstColumn + i]", "(1.0 + gain[firstColumn + i])", every),
  "rms-norm: no eps": mutant(rmsNorm, "p.eps * down", "0.0 * down", every),
  "rms-norm: one thread's share is lost": mutant(rmsNorm, "half > 0u", "half > 1u", every),
  "rms-norm: a subgroup's share is lost": mutant(
    rmsNorm,
    "s < lane.subgroups",
    "s + 1u < lane.subgroups",
    every,
    fast,
  ),
  "rms-norm: all subgroups have the sum of the first": mutant(
    rmsNorm,
    "all[i] + part[s][i]",
    "all[i] + part[0][i]",
    every,
    fast,
  ),
  "gated-norm: y gates z": mutant(gatedNorm, "y[i] * siluOf(z[i])", "z[i] * siluOf(y[i])", every),
  "gated-norm: no gate": mutant(gatedNorm, "y[i] * siluOf(z[i])", "y[i] + 0.0 * z[i]", every),
  "gated-norm: every group has the gains of the first": mutant(
    gatedNorm,
    "group.x * p.width, lane",
    "0u, lane",
    every,
  ),
  "gated-norm: no gate after the norm": mutant(
    gatedNorm,
    "out[i] * siluOf(z[i])",
    "out[i]",
    (p) => p.normFirst,
  ),
  "gated-norm: norms of the gate": mutant(gatedNorm, "y[first + i]", "z[first + i]", (p) => p.normFirst),
  "layer-norm: the mean stays": mutant(layerNorm, "- mean) - rest", "- 0.0 * mean) - 0.0 * rest", every),
  "layer-norm: no bias": mutant(layerNorm, "+ bias[i]", "+ 0.0 * bias[i]", every),
  "layer-norm: gain as stored": mutant(layerNorm, "gain[i] + p.shift", "gain[i]", every),
  "layer-norm: no eps": mutant(layerNorm, "p.eps * down", "0.0 * down", every),
  "layer-norm: a token's own row is the first": mutant(layerNorm, "x[first + i]", "x[i]", every),
  "gated-norm: no eps": mutant(gatedNorm, "p.eps * down", "0.0 * down", every),
  "conv1d: taps reversed": mutant(conv1d, "p.kernel - 1u - lag", "lag", every),
  "conv1d: a token late": mutant(conv1d, "now - lag * p.width", "now - min(lag + 1u, t) * p.width", every),
  "conv1d: taps of the neighbour": mutant(conv1d, "taps[c * p.kernel", "taps[(c ^ 1u) * p.kernel", every),
  "conv1d: no bias": mutant(conv1d, "= bias[c]", "= 0.0 * bias[c]", every),
  "conv1d: no silu": mutant(conv1d, "siluOf(sum)", "sum", every),
  "linear: no scale, few tokens": mutant(linear, "p.scale * sum", "sum", few),
  "linear: no scale, many": mutant(linear, "p.scale * sum", "sum", many),
  "linear: bands start at row 0": mutant(linear, "(p.firstRow + min(row", "(0u + min(row", few),
  "linear: columns start at 0": mutant(linear, "* p.inWidth + p.inFrom", "* p.inWidth", few),
  "linear: writes over its neighbours": mutant(linear, "* p.outWidth + p.outFrom", "* p.outWidth", few),
  "linear: columns beyond the last count": mutant(linear, "vec4u(0u, 1u, 2u, 3u) <", "vec4u(0u) <", few),
  "linear: a thread's sum is lost": mutant(linear, "half > 0u", "half > 1u", few),
  "linear: a subgroup gives its first thread's sum": mutant(
    linear,
    "subgroupAdd(own[i])",
    "own[i]",
    few,
    fast,
  ),
  "linear: a subgroup takes another's place": mutant(
    linear,
    "part[lane.subgroup] =",
    "part[lane.subgroup & ~1u] =",
    few,
    fast,
  ),
  "linear: only the last block counts": mutant(linear, "total[s] += sums[s]", "total[s] = sums[s]", many),
  "linear: rows of a tile exchanged": mutant(linear, "wTile[at + 16u]", "wTile[at + 32u]", many),
  "linear: every token is the first": mutant(linear, "min(token, p.tokens - 1u)", "min(token, 0u)", many),
  "attention: sees one token ahead": mutant(attention, "query + 1u, tile", "query + 2u, tile", short),
  "attention: does not see itself": mutant(attention, "query + 1u, tile", "max(query, 1u), tile", short),
  "attention: head a uses pair a mod kvHeads": mutant(
    attention,
    "head / (p.heads / p.kvHeads)",
    "head % p.kvHeads",
    short,
  ),
  "attention: scores not scaled": mutant(attention, "score * p.scale", "score", short),
  "attention: no rescaling when a larger score comes": mutant(
    attention,
    "expOf(peak - best)",
    "1.0",
    (p) => p.tokens === 50,
  ),
  "attention: does not see what was before": mutant(
    attention,
    "max(p.past + query",
    "max(query",
    (p) => p.past > 0,
  ),
  "attention: the window begins a token late": mutant(
    attention,
    "query + 1u, p.window",
    "query + 2u, p.window",
    (p) => p.window > 1,
  ),
  "attention: the window begins a token early": mutant(
    attention,
    "query + 1u, p.window",
    "query, p.window",
    (p) => p.window > 0,
  ),
  "attention: a tile of the window is skipped": mutant(
    attention,
    "tile = startOfAll",
    "tile = startOfAll + 16u",
    (p) => p.window > 0,
  ),
  "attention: the window does not count earlier tokens": mutant(
    attention,
    "max(p.past + query + 1u, p.window)",
    "max(query + 1u, p.window)",
    (p) => p.window > 0,
  ),
  ...Object.fromEntries(
    Object.entries({
      "no window": ["all - p.window", "0u * p.window"],
      "the window is a token too wide": ["all - p.window", "all - min(p.window + 1u, all)"],
      "does not see the last key": ["key < all)", "key + 1u < all)"],
      "no rescaling when a larger score comes": ["expOf(peak - best)", "1.0"],
      "keys of the first run only": ["((first + s) *", "(s *"],
      "elements beyond the threads are the first": ["v[value + 128u * d]", "v[value]"],
      "head a uses pair a mod kvHeads": ["head / (p.heads / p.kvHeads)", "head % p.kvHeads"],
      "a thread's sum for all": ["sumOf(lane, array(sum))[0]", "sum"],
    }).map(([name, [right, wrong]]) => [
      `attention of one token: ${name}`,
      mutant(attention, right!, wrong!, (p) => p.past === 140, fast),
    ]),
  ),
  "conv1d: the rows before are the tokens": mutant(conv1d, "i + p.past", "i + 0u * p.past", every),
  "copy: from the start": mutant(copy, "x[p.first + i]", "x[0u * p.first + i]", every),
  "copy: to the start": mutant(copy, "out[p.at + i]", "out[0u * p.at + i]", every),
  "ssd-step: begins with zeros": mutant(ssdStep, "= before[held + n]", "= 0.0 * before[held + n]", short),
  "ssd-step: rows of the state exchanged": mutant(
    ssdStep,
    "= before[held + n]",
    "= before[(held ^ STATE) + n]",
    short,
  ),
  "ssd-step: the state after lies elsewhere": mutant(ssdStep, "y[after + n]", "y[after + (n ^ 1u)]", short),
  "ssd-step: the state does not decay": mutant(ssdStep, "step.y * s[n]", "s[n]", short),
  "ssd-step: no delta": mutant(ssdStep, "step.x * x[at]", "x[at]", short),
  "ssd-step in chunks: begins with zeros": mutant(
    ssdStep,
    "select(0.0, before",
    "0.0 * select(0.0, before",
    long,
  ),
  "ssd-step in chunks: columns of the state exchanged": mutant(
    ssdStep,
    "states[i][c] =",
    "states[i][c ^ 1u] =",
    long,
  ),
  "ssd-step in chunks: the state after lies elsewhere": mutant(
    ssdStep,
    "y[p.after + i]",
    "y[p.after + (i ^ 1u)]",
    long,
  ),
  "ssd-step in chunks: the state before is forgotten": mutant(
    ssdStep,
    "step.z * before[q][i]",
    "0.0 * before[q][i]",
    long,
  ),
  "attention: keys of the first tile only": mutant(
    attention,
    "let key = min(tile + i",
    "let key = min(i",
    (p) => p.tokens === 50,
  ),
  ...Object.fromEntries(
    Object.entries({
      "head k uses group k mod groups": ["head / (p.heads / p.groups)", "head % p.groups"],
      "no D": ["D[head] * x", "0.0 * D[head] * x"],
      "no dt_bias": ["+ dt_bias[head]", "+ 0.0 * dt_bias[head]"],
      "A for A_log": ["= expOf(A_log[head])", "= abs(A_log[head])"],
      "delta is no factor of the input": ["delta * a)", "delta * a) * 1.01"],
    }).flatMap(([name, [right, wrong]]) => [
      [`ssd: ${name}`, mutant(ssd, right!, wrong!, short)],
      [`ssd in chunks: ${name}`, mutant(ssd, right!, wrong!, long)],
    ]),
  ),
  "mix: no weights": mutant(mix, "weight[j] *", "(1.0 + 0.0 * weight[j]) *", every),
  "mix: the first term only": mutant(mix, "j < first + p.terms", "j < first + 1u", every),
  "mix: the rows in their own order": mutant(mix, "u32(source[j])", "u32(0.0 * source[j])", every),
  "rope: always neighbours": mutant(rope, "p.interleaved == 1u", "true", every),
  "rope: never neighbours": mutant(rope, "p.interleaved == 1u", "false", every),
  "rope: turns the other way": mutant(rope, "select(-other, other,", "select(other, -other,", every),
  "rope: cosines for sines": mutant(rope, "table[at + half]", "table[at]", every),
  "rope: a position for each head": mutant(rope, "i / (p.heads * p.dim)", "i / p.dim % p.heads", every),
  "rope: the last elements are zeros": mutant(rope, "out[i] = x[i];", "out[i] = 0.0 * x[i];", every),
  "router-score: no correction": mutant(routerScore, "+ correction[", "+ 0.0 * correction[", every),
  "router-score: correction of the neighbour": mutant(
    routerScore,
    "i % p.experts",
    "(i + 1u) % p.experts",
    every,
  ),
  "router-choose: of equals the later": mutant(routerChoose, "rank > best)", "rank >= best)", every),
  "router-choose: of equal groups the later": mutant(routerChoose, "o < g", "o > g", every),
  "router-choose: a group is worth its best alone": mutant(
    routerChoose,
    "first + second",
    "first + 0.0 * second",
    every,
  ),
  "router-choose: all groups are eligible": mutant(routerChoose, "better < p.topGroups", "true", every),
  "router-weigh: not normalised": mutant(routerWeigh, "/ sum)", "/ (1.0 + 0.0 * sum))", every),
  "router-weigh: no scale": mutant(routerWeigh, "p.scale *", "1.0 *", every),
  "router-weigh: experts of the first token": mutant(
    routerWeigh,
    "chosen[t * p.topK",
    "chosen[0u * p.topK",
    every,
  ),
  "router-softmax: always over all": mutant(routerSoftmax, "p.all == 1u", "true", every),
  "router-softmax: never over all": mutant(routerSoftmax, "p.all == 1u", "false", every),
  "router-softmax: the first logit is no term": mutant(
    routerSoftmax,
    "k = 0u; k < terms",
    "k = 1u; k < terms",
    every,
  ),
  "router-softmax: the peak of the first alone": mutant(routerSoftmax, "peak = max(", "peak = min(", every),
  "router-softmax: not divided": mutant(routerSoftmax, "/ sum", "", every),
  "ssd: B and C exchanged": mutant(ssd, "input * bs[n]", "input * cs[n]", short),
  "ssd: no limits of delta": mutant(ssd, "delta < p.dtMin", "false", (p) => p.dtMin > 0),
  "ssd in chunks: no state goes on": mutant(ssd, "step.z * before[q][i]", "0.0 * before[q][i]", long),
  "ssd in chunks: the state does not decay": mutant(ssd, "kept * states[place]", "states[place]", long),
  "ssd in chunks: a token meets itself decayed": mutant(
    ssd,
    "let share = meet[met + s * 64u] * decay;\n        decay *= steps[(first + s) * p.heads + head].y;",
    "decay *= steps[(first + s) * p.heads + head].y;\n        let share = meet[met + s * 64u] * decay;",
    long,
  ),
  "ssd in chunks: a token misses the first of its chunk": mutant(
    ssd,
    "back <= lane",
    "back < max(lane, 1u)",
    long,
  ),
  "ssd in chunks: B decays from the chunk's start": mutant(ssd, ".w;", ".z;", long),
  "ssd in chunks: delta twice": mutant(ssd, "step.x * x[at", "step.x * step.x * x[at", long),
  "ssd in chunks: C meets the B of the next group": mutant(
    ssd,
    "b4(min(first + s + i, last), group",
    "b4(min(first + s + i, last), (group + 1u) % p.groups",
    long,
  ),
};

/** Whether some case detects it; the cases after that one are not run, because each form of a shader takes its time to compile. */
async function isDetected({ kernel, backend }: Mutant): Promise<boolean> {
  for (const p of kernel.cases) {
    const [row] = await checkKernels(backend, [{ ...kernel, cases: [p] }]);
    if (!row!.ok) return true;
  }
  return false;
}

describe("a wrong shader exceeds its bound", () => {
  it.each(Object.entries(mutants))("%s", async (_, wrong) => {
    expect(await isDetected(wrong)).toBe(true);
  });
});
