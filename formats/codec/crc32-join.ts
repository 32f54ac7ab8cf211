/** Joins the CRC-32 of runs of bytes: checksums of bands become the checksum that a zip needs. */

/** The CRC-32 polynomial, bits reversed: bit 31 is x^0. */
const POLYNOMIAL = 0xedb88320;
const ONE = 0x80000000;

/** a · b modulo the polynomial. */
function times(a: number, b: number): number {
  let product = 0;
  for (let mask = ONE, factor = b; mask !== 0; mask >>>= 1) {
    if ((a & mask) !== 0) product ^= factor;
    factor = (factor & 1) !== 0 ? (factor >>> 1) ^ POLYNOMIAL : factor >>> 1;
  }
  return product >>> 0;
}

/** x^(8 · bytes) modulo the polynomial: the factor by which that many appended bytes change a CRC. */
function shiftBy(bytes: number): number {
  let power = ONE;
  // x^8, x^16, x^32 …; sizes may exceed 2^32, so bit operators are not used on them
  for (let square = 0x00800000, left = bytes; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) power = times(power, square);
    square = times(square, square);
  }
  return power;
}

/**
 * The CRC-32 of `size` bytes.
 *
 * @param crcs   the CRC-32 of each run of `runBytes`, in order; the last run is the rest
 * @param size   bytes of all runs together
 */
export function joinCrc32(crcs: readonly number[], size: number, runBytes: number): number {
  const whole = shiftBy(runBytes);
  return crcs.reduce((joined, crc, i) => {
    if (i === 0) return crc;
    const isLast = i === crcs.length - 1;
    const shift = isLast ? shiftBy(size - i * runBytes) : whole;
    return (times(shift, joined) ^ crc) >>> 0;
  }, 0);
}
