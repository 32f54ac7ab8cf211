/** Names and numbers as a person reads them, on a terminal or on a page. */

/**
 * Names come from files of strangers: control characters in them would steer the terminal. They, and what is no
 * character at all (halves of surrogate pairs, U+FFFE, U+FFFF: XML forbids them), are shown by their number.
 */
export function visible(text: string): string {
  return text.replace(
    /\p{Cc}|\p{Cf}|\p{Cs}|[\ufffe\uffff]/gu,
    (control) => `\\u{${control.codePointAt(0)!.toString(16).padStart(2, "0")}}`,
  );
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `15.1 GiB`; below 1 KiB the exact number. */
export function bytes(count: number): string {
  const power = count < 1024 ? 0 : Math.min(Math.floor(Math.log2(count) / 10), BINARY.length - 1);
  return `${power === 0 ? count : (count / 1024 ** power).toFixed(1)} ${BINARY[power]}`;
}

/** `8,101,234,567` */
export const grouped = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, ",");

/** `1 tensor`, `720 tensors` */
export const counted = (count: number, one: string, many = `${one}s`): string =>
  `${grouped(count)} ${count === 1 ? one : many}`;

/** A measured value to three digits; exact zero is shown as such. */
export function measured(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 0.001 && size < 1e6 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

export const percent = (fraction: number): string => `${Number((fraction * 100).toPrecision(4))} %`;
