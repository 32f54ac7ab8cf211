/** Compares every kernel on a backend with its oracle, for the tests and for `isologit doctor --kernels`. */
import { halvesOf } from "../src/core/blocks/values.ts";
import { blockElements, type DecodedBlock, isDecodedBlock, widthOf } from "../src/core/dtype.ts";
import { IsologitError } from "../src/core/errors.ts";
import { encode, type NarrowDType, tableOf, widen } from "../src/core/float.ts";
import { splitMix64 } from "../src/core/random.ts";
import { kernels } from "./index.ts";
import type { Backend, Fill, Kernel, Operand, ScriptKernel } from "./kernel.ts";

interface KernelRow {
  readonly id: string;
  readonly backend: Backend["id"];
  readonly device: string;
  readonly cases: number;
  /** max |kernel - oracle| / max |oracle| of the case with the largest ratio of error to bound */
  readonly worstError: number;
  readonly bound: number;
  readonly ok: boolean;
}

export async function checkKernels(
  backend: Backend,
  which: readonly (Kernel | ScriptKernel)[] = kernels,
): Promise<readonly KernelRow[]> {
  const rows: KernelRow[] = [];
  for (const kernel of which) rows.push(await checkKernel(backend, kernel));
  return rows;
}

async function checkKernel(backend: Backend, kernel: Kernel | ScriptKernel): Promise<KernelRow> {
  let cases = 0;
  let worst = { error: 0, bound: 0, ratio: -1 };
  for (const p of kernel.cases) {
    const bound = boundOf(kernel, p, backend);
    for (const hard of kernel.inputs(p).some((operand) => operand.hard) ? [false, true] : [false]) {
      const error = errorOf(...(await runBothForms(backend, kernel, p, hard)), SLACK[backend.id]);
      const ratio = error === 0 ? 0 : error / bound;
      if (ratio > worst.ratio) worst = { error, bound, ratio };
      cases++;
    }
  }
  const { error, bound, ratio } = worst;
  return {
    id: kernel.id,
    backend: backend.id,
    device: backend.device,
    cases,
    worstError: error,
    bound,
    ok: ratio <= 1,
  };
}

/** The largest allowed error of the form of a kernel that this backend runs. */
function boundOf<P>(kernel: Kernel<P> | ScriptKernel<P>, p: P, { id, extensions }: Backend): number {
  return (id === "webgpu" ? kernel.wgsl?.bound?.(p, extensions) : undefined) ?? kernel.bound(p);
}

/**
 * The results of a kernel and of its oracle for the same seeded random operands. Both start with the same random
 * output, so that the comparison finds changes of elements that the kernel must not write.
 */
export async function runBothForms<P>(
  backend: Backend,
  kernel: Kernel<P> | ScriptKernel<P>,
  p: P,
  hard: boolean,
): Promise<readonly [got: Float32Array, wanted: Float64Array]> {
  const random = splitMix64(kernel.cases.indexOf(p));
  const inputs = kernel
    .inputs(p)
    .map((operand) => fillOperand(operand, (hard && operand.hard) || "normal", random));
  const before = fillOperand(kernel.output(p), "normal", random);

  const wanted = Float64Array.from(widen("F32", before));
  const exact = kernel.inputs(p).map(({ dtype }, i) => Float64Array.from(widen(dtype, inputs[i]!)));
  kernel.oracle(p, exact, wanted);
  if (!wanted.every(Number.isFinite))
    throw new IsologitError("INTERNAL", `${kernel.id}: an oracle overflowed`);

  const regions = [];
  for (const bytes of [...inputs, before]) {
    const region = backend.allocate(bytes.length);
    await backend.upload(region, bytes.length, (view) => view.set(bytes));
    regions.push(region);
  }
  const output = regions.at(-1)!;
  await backend.run(kernel, p, regions.slice(0, -1), output);
  const got = (await backend.view(output, wanted.length)).slice();
  for (const region of regions) backend.release(region);
  return [got, wanted];
}

/** WGSL allows a device to replace subnormal operands and results by zero; most devices do. */
const SLACK: Readonly<Record<Backend["id"], number>> = { wasm: 0, webgpu: 2 ** -125 };

/**
 * max |got - wanted| / max |wanted|, where the divisor is at least the smallest normal F32; infinite if `got` has a
 * NaN.
 *
 * @param slack differences up to this are ignored
 */
export function errorOf(got: Float32Array, wanted: Float64Array, slack: number): number {
  let difference = 0;
  let largest = 2 ** -126;
  for (let i = 0; i < wanted.length; i++) {
    const off = Math.abs(got[i]! - wanted[i]!);
    if (!(off <= slack)) difference = Math.max(difference, Number.isNaN(off) ? Infinity : off);
    largest = Math.max(largest, Math.abs(wanted[i]!));
  }
  return difference / largest;
}

/**
 * Random bytes of an operand. "codes" applies to 8-bit, F16 and quantised types: BF16 or F32 with any bits would overflow a
 * sum.
 */
function fillOperand({ length, dtype, below }: Operand, fill: Fill, random: () => bigint): Uint8Array {
  if (isDecodedBlock(dtype)) return fillBlocks(dtype, length, fill, random);
  const drawNumber = below === undefined ? () => draw(fill, random) : () => Number(random() % BigInt(below));
  const numbers = () => Float32Array.from({ length }, drawNumber);
  if (dtype === "F32") return new Uint8Array(numbers().buffer);
  const codes =
    fill === "codes" && dtype !== "BF16"
      ? everyCode(dtype, length)
      : Array.from(numbers(), (value) => encode(dtype, value));
  return new Uint8Array((widthOf(dtype) === 1 ? Uint8Array.from(codes) : Uint16Array.from(codes)).buffer);
}

/** Blocks of any bits, but for their F16 numbers: small normal ones, or with "codes" any that are finite. */
function fillBlocks(dtype: DecodedBlock, length: number, fill: Fill, random: () => bigint): Uint8Array {
  const size = blockElements(dtype) * widthOf(dtype);
  const bytes = Uint8Array.from({ length: length * widthOf(dtype) }, () => Number(random() & 0xffn));
  const starts = Array.from({ length: bytes.length / size }, (_, i) => i * size);
  const places = starts.flatMap((at) => halvesOf(dtype).map((from) => at + from));
  const halves = everyCode("F16", places.length);
  for (const [i, at] of places.entries()) {
    const code = fill === "codes" ? halves[i]! : encode("F16", draw("normal", random) / 64);
    bytes.set([code & 0xff, code >> 8], at);
  }
  return bytes;
}

/** `length` finite codes: all codes in turn, in steps of a prime number, which mixes large and small values. */
function everyCode(dtype: NarrowDType, length: number): readonly number[] {
  const table = tableOf(dtype);
  const finite = [...table.keys()].filter((code) => Number.isFinite(table[code]));
  return Array.from({ length }, (_, i) => finite[(i * 7919) % finite.length]!);
}

/**
 * A random number, with mean zero except for "shifted". "normal": the sum of four uniform numbers, with standard
 * deviation 1. "gate": the same times 1, 30 or 100, for arguments of exponentials. "ties": rounded to multiples of 1/2,
 * so that many are equal. "shifted": with a mean of 10 standard deviations, which a variance must not lose digits to.
 * "wide" (and "codes" of wide types): one in eight is zero, the others are between the subnormals and 2^40.
 */
function draw(fill: Fill, random: () => bigint): number {
  const bits = random();
  const part = (i: bigint) => Number((bits >> (16n * i)) & 0xffffn);
  const normal = Math.sqrt(3) * ((part(0n) + part(1n) + part(2n) + part(3n)) / 65536 - 2);
  switch (fill) {
    case "normal":
      return normal;
    case "gate":
      return normal * [1, 30, 100][Number(random() % 3n)]!;
    case "ties":
      return Math.round(2 * normal) / 2;
    case "shifted":
      return normal + 10;
    case "wide":
    case "codes": {
      const choice = Number(random() % 1528n);
      return choice % 8 === 0 ? 0 : normal * 2 ** ((choice >> 3) - 150);
    }
    default:
      return fill satisfies never;
  }
}
