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
  readonly halves: readonly number[];
  /** elements that share a scale */
  readonly run: number;
  /** @param b the bytes of a block; `d` and `m`: its F16 numbers */
  readonly read: (b: Uint8Array, d: number, m: number, to: Contents) => void;
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

/** The eight scales and eight minimums of Q4_K and Q5_K, six bits each, in twelve bytes from byte 4. */
function readSixBits(b: Uint8Array, d: number, m: number, { scales, minimums }: Contents): void {
  const s = b.subarray(4, 16);
  for (let j = 0; j < 8; j++) {
    const scale = j < 4 ? s[j]! & 63 : (s[j + 4]! & 15) | ((s[j - 4]! >> 6) << 4);
    const minimum = j < 4 ? s[j + 4]! & 63 : (s[j + 4]! >> 4) | ((s[j]! >> 6) << 4);
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
    read(b, d, _, to) {
      to.scales[0] = d;
      to.codes.set(b.subarray(2, 34)); // an Int8Array takes a byte as a signed number
    },
  },
  Q4_0: {
    ...{ halves: [0], run: 32 },
    read(b, d, _, to) {
      to.scales[0] = d;
      readNibbles(b, 2, to, 8);
    },
  },
  Q4_1: {
    ...{ halves: [0, 2], run: 32 },
    read(b, d, m, to) {
      to.scales[0] = d;
      to.minimums[0] = -m;
      readNibbles(b, 4, to, 0);
    },
  },
  Q5_0: {
    ...{ halves: [0], run: 32 },
    read(b, d, _, to) {
      to.scales[0] = d;
      readFiveBits(b, 2, to, 16);
    },
  },
  Q5_1: {
    ...{ halves: [0, 2], run: 32 },
    read(b, d, m, to) {
      to.scales[0] = d;
      to.minimums[0] = -m;
      readFiveBits(b, 4, to, 0);
    },
  },
  IQ4_NL: {
    ...{ halves: [0], run: 32 },
    read(b, d, _, to) {
      to.scales[0] = d;
      readNibbles(b, 2, to, 0);
      for (let i = 0; i < 32; i++) to.codes[i] = IQ4_VALUES[to.codes[i]!]!;
    },
  },
  Q2_K: {
    ...{ halves: [80, 82], run: 16 },
    read(b, d, m, to) {
      readPairs(b, 16, to);
      for (let j = 0; j < 16; j++) {
        to.scales[j] = d * (b[j]! & 15);
        to.minimums[j] = m * (b[j]! >> 4);
      }
    },
  },
  Q3_K: {
    ...{ halves: [108], run: 16 },
    read(b, d, _, to) {
      readPairs(b, 32, to);
      for (let i = 0; i < 256; i++) to.codes[i]! -= ((b[i & 31]! >> (i >> 5)) & 1) === 1 ? 0 : 4;
      for (let j = 0; j < 16; j++) {
        const low = (b[96 + (j & 7)]! >> (4 * (j >> 3))) & 15;
        const high = (b[104 + (j & 3)]! >> (2 * (j >> 2))) & 3;
        to.scales[j] = d * ((low | (high << 4)) - 32);
      }
    },
  },
  Q4_K: {
    ...{ halves: [0, 2], run: 32 },
    read(b, d, m, to) {
      readSixBits(b, d, m, to);
      readGroups(b, 16, to);
    },
  },
  Q5_K: {
    ...{ halves: [0, 2], run: 32 },
    read(b, d, m, to) {
      readSixBits(b, d, m, to);
      readGroups(b, 48, to);
      for (let i = 0; i < 256; i++) to.codes[i]! += ((b[16 + (i & 31)]! >> (i >> 5)) & 1) << 4;
    },
  },
  Q6_K: {
    ...{ halves: [208], run: 16 },
    read(b, d, _, to) {
      for (let i = 0; i < 256; i++) {
        const [half, quarter, l] = [i >> 7, (i >> 5) & 3, i & 31];
        const low = (b[64 * half + 32 * (quarter & 1) + l]! >> (4 * (quarter >> 1))) & 15;
        const high = (b[128 + 32 * half + l]! >> (2 * quarter)) & 3;
        to.codes[i] = (low | (high << 4)) - 32;
      }
      for (let j = 0; j < 16; j++) to.scales[j] = d * signed(b[192 + j]!);
    },
  },
  IQ4_XS: {
    ...{ halves: [0], run: 32 },
    read(b, d, _, to) {
      for (let j = 0; j < 8; j++) {
        const low = (b[4 + (j >> 1)]! >> (4 * (j & 1))) & 15;
        const high = (b[2 + (j >> 2)]! >> (2 * (j & 3))) & 3;
        to.scales[j] = d * ((low | (high << 4)) - 32);
        readNibbles(b, 8 + 16 * j, to, 0, 32 * j);
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
  const contents: Contents = {
    codes: new Int8Array(elements),
    scales: new Float32Array(elements / run),
    minimums: new Float32Array(elements / run),
  };
  const { codes, scales, minimums } = contents;
  const hasMinimums = halves.length > 1;
  const out = new Float32Array((bytes.byteLength / size) * elements);
  for (let at = 0, to = 0; at < bytes.byteLength; at += size, to += elements) {
    const block = bytes.subarray(at, at + size);
    const [d = 0, m = 0] = halves.map((from) => half[block[from]! | (block[from + 1]! << 8)]!);
    read(block, d, m, contents);
    for (let i = 0; i < elements; i++) {
      const product = Math.fround(scales[Math.floor(i / run)]! * codes[i]!);
      // Subtracting a minimum of 0 would turn -0 into 0 where a type has none.
      out[to + i] = hasMinimums ? product - minimums[Math.floor(i / run)]! : product;
    }
  }
  return out;
}
