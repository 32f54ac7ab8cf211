/**
 * The values of the quantised types of ggml, in F32. This file is the definition: tests compare it with the values that ggml
 * computes, and the kernels with this file, bit for bit.
 *
 * A block is cut into runs of 16 or 32 elements; a value is `scale * code` or `scale * code - minimum`. The scale is an F16
 * number times an integer of at most 8 bits and the code has at most 8, so both products are exact in F32: only the
 * subtraction rounds, and a fused multiply-add gives the same bits.
 */
import { blockElements, type DecodedBlock, widthOf } from "../dtype.ts";
import { IsologitError } from "../errors.ts";

/** The 16 values that a code of IQ4_NL and IQ4_XS selects. */
const IQ4_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

/** What a block holds: codes of its elements, and scales and minimums of its runs. */
interface Contents {
  readonly codes: Int8Array;
  readonly scales: Float32Array;
  readonly minimums: Float32Array;
}

interface Layout {
  /** bytes at which the F16 numbers of a block begin: the scale, then the minimum or its scale */
  readonly halves: readonly [number] | readonly [number, number];
  /** elements that share a scale */
  readonly run: number;
  /** @param at the first byte of a block; `d` and `m`: its F16 numbers */
  readonly read: (b: Uint8Array, at: number, d: number, m: number, to: Contents) => void;
}

/** Codes of four bits: byte j has that of element `first + j` below and that of `first + 16 + j` above. */
function readNibbles(b: Uint8Array, at: number, { codes }: Contents, less: number, first = 0): void {
  for (let j = 0; j < 16; j++) {
    codes[first + j] = (b[at + j]! & 15) - less;
    codes[first + 16 + j] = (b[at + j]! >> 4) - less;
  }
}

/** Codes of five bits: four in `readNibbles`, and bit i of a 32-bit number for element i. */
function readFiveBits(b: Uint8Array, at: number, to: Contents, less: number): void {
  readNibbles(b, at + 4, to, less);
  for (let i = 0; i < 32; i++) to.codes[i]! += ((b[at + (i >> 3)]! >> (i & 7)) & 1) << 4;
}

/** The eight scales and eight minimums of Q4_K and Q5_K, six bits each, in twelve bytes from `at`. */
function readSixBits(b: Uint8Array, at: number, d: number, m: number, { scales, minimums }: Contents): void {
  for (let j = 0; j < 8; j++) {
    const [s, next] = [at + j, b[at + j + 4]!];
    const scale = j < 4 ? b[s]! & 63 : (next & 15) | ((b[s - 4]! >> 6) << 4);
    const minimum = j < 4 ? next & 63 : (next >> 4) | ((b[s]! >> 6) << 4);
    scales[j] = d * scale;
    minimums[j] = m * minimum;
  }
}

/** Codes of four bits in groups of 64 elements: byte l of a group has element l below and element 32 + l above. */
function readGroups(b: Uint8Array, at: number, { codes }: Contents): void {
  for (let i = 0; i < 256; i++) {
    codes[i] = (b[at + 32 * (i >> 6) + (i & 31)]! >> (4 * ((i >> 5) & 1))) & 15;
  }
}

/** Codes of two bits in halves of 128 elements: byte l of a half has elements l, 32 + l, 64 + l and 96 + l. */
function readPairs(b: Uint8Array, at: number, { codes }: Contents): void {
  for (let i = 0; i < 256; i++) {
    codes[i] = (b[at + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
  }
}

const signed = (byte: number): number => (byte << 24) >> 24;

const LAYOUTS: Readonly<Record<DecodedBlock, Layout>> = {
  Q8_0: {
    ...{ halves: [0], run: 32 },
    read(b, at, d, _, to) {
      to.scales[0] = d;
      for (let i = 0; i < 32; i++) to.codes[i] = b[at + 2 + i]!; // an Int8Array takes a byte as a signed number
    },
  },
  Q4_0: {
    ...{ halves: [0], run: 32 },
    read(b, at, d, _, to) {
      to.scales[0] = d;
      readNibbles(b, at + 2, to, 8);
    },
  },
  Q4_1: {
    ...{ halves: [0, 2], run: 32 },
    read(b, at, d, m, to) {
      to.scales[0] = d;
      to.minimums[0] = -m;
      readNibbles(b, at + 4, to, 0);
    },
  },
  Q5_0: {
    ...{ halves: [0], run: 32 },
    read(b, at, d, _, to) {
      to.scales[0] = d;
      readFiveBits(b, at + 2, to, 16);
    },
  },
  Q5_1: {
    ...{ halves: [0, 2], run: 32 },
    read(b, at, d, m, to) {
      to.scales[0] = d;
      to.minimums[0] = -m;
      readFiveBits(b, at + 4, to, 0);
    },
  },
  IQ4_NL: {
    ...{ halves: [0], run: 32 },
    read(b, at, d, _, to) {
      to.scales[0] = d;
      readNibbles(b, at + 2, to, 0);
      for (let i = 0; i < 32; i++) to.codes[i] = IQ4_VALUES[to.codes[i]!]!;
    },
  },
  Q2_K: {
    ...{ halves: [80, 82], run: 16 },
    read(b, at, d, m, to) {
      readPairs(b, at + 16, to);
      for (let j = 0; j < 16; j++) {
        to.scales[j] = d * (b[at + j]! & 15);
        to.minimums[j] = m * (b[at + j]! >> 4);
      }
    },
  },
  Q3_K: {
    ...{ halves: [108], run: 16 },
    read(b, at, d, _, to) {
      readPairs(b, at + 32, to);
      for (let i = 0; i < 256; i++) to.codes[i]! -= ((b[at + (i & 31)]! >> (i >> 5)) & 1) === 1 ? 0 : 4;
      for (let j = 0; j < 16; j++) {
        const low = (b[at + 96 + (j & 7)]! >> (4 * (j >> 3))) & 15;
        const high = (b[at + 104 + (j & 3)]! >> (2 * (j >> 2))) & 3;
        to.scales[j] = d * ((low | (high << 4)) - 32);
      }
    },
  },
  Q4_K: {
    ...{ halves: [0, 2], run: 32 },
    read(b, at, d, m, to) {
      readSixBits(b, at + 4, d, m, to);
      readGroups(b, at + 16, to);
    },
  },
  Q5_K: {
    ...{ halves: [0, 2], run: 32 },
    read(b, at, d, m, to) {
      readSixBits(b, at + 4, d, m, to);
      readGroups(b, at + 48, to);
      for (let i = 0; i < 256; i++) to.codes[i]! += ((b[at + 16 + (i & 31)]! >> (i >> 5)) & 1) << 4;
    },
  },
  Q6_K: {
    ...{ halves: [208], run: 16 },
    read(b, at, d, _, to) {
      for (let i = 0; i < 256; i++) {
        const [half, quarter, l] = [i >> 7, (i >> 5) & 3, i & 31];
        const low = (b[at + 64 * half + 32 * (quarter & 1) + l]! >> (4 * (quarter >> 1))) & 15;
        const high = (b[at + 128 + 32 * half + l]! >> (2 * quarter)) & 3;
        to.codes[i] = (low | (high << 4)) - 32;
      }
      for (let j = 0; j < 16; j++) to.scales[j] = d * signed(b[at + 192 + j]!);
    },
  },
  IQ4_XS: {
    ...{ halves: [0], run: 32 },
    read(b, at, d, _, to) {
      for (let j = 0; j < 8; j++) {
        const low = (b[at + 4 + (j >> 1)]! >> (4 * (j & 1))) & 15;
        const high = (b[at + 2 + (j >> 2)]! >> (2 * (j & 3))) & 3;
        to.scales[j] = d * ((low | (high << 4)) - 32);
        readNibbles(b, at + 8 + 16 * j, to, 0, 32 * j);
      }
      for (let i = 0; i < 256; i++) to.codes[i] = IQ4_VALUES[to.codes[i]!]!;
    },
  },
};

/** Bytes of a block at which its F16 numbers begin. A block is damaged if one of them is not finite. */
export function halvesOf(dtype: DecodedBlock): readonly number[] {
  return LAYOUTS[dtype].halves;
}

/**
 * The values of whole blocks, F32. The sign of zero is kept.
 *
 * @param half the value of every F16 code
 * @throws INTERNAL for bytes that are not whole blocks
 */
export function widenBlocks(dtype: DecodedBlock, bytes: Uint8Array, half: Float32Array): Float32Array {
  const elements = blockElements(dtype);
  const size = elements * widthOf(dtype);
  if (bytes.byteLength % size !== 0) {
    throw new IsologitError("INTERNAL", `${bytes.byteLength} bytes of ${dtype}, whose blocks have ${size}`);
  }
  const { halves, run, read } = LAYOUTS[dtype];
  const runs = elements / run;
  const contents: Contents = {
    codes: new Int8Array(elements),
    scales: new Float32Array(runs),
    minimums: new Float32Array(runs),
  };
  const { codes, scales, minimums } = contents;
  const [scaleAt, minimumAt] = halves;
  const halfAt = (at: number) => half[bytes[at]! | (bytes[at + 1]! << 8)]!;
  const out = new Float32Array((bytes.byteLength / size) * elements);
  let to = 0;
  for (let at = 0; at < bytes.byteLength; at += size) {
    read(bytes, at, halfAt(at + scaleAt), minimumAt === undefined ? 0 : halfAt(at + minimumAt), contents);
    let i = 0;
    for (let j = 0; j < runs; j++) {
      const [scale, minimum, end] = [scales[j]!, minimums[j]!, i + run];
      // Subtracting a minimum of 0 would turn -0 into 0 where a type has none. A product is exact.
      if (minimumAt === undefined) for (; i < end; i++) out[to++] = scale * codes[i]!;
      else for (; i < end; i++) out[to++] = scale * codes[i]! - minimum;
    }
  }
  return out;
}
