/** Names and numbers as text, for a terminal or a page. */

/**
 * Names are untrusted input. Control characters in them could change the terminal, and XML forbids halves of surrogate
 * pairs, U+FFFE and U+FFFF: each of these is replaced by its number.
 */
export function escapeControls(text: string): string {
  return text.replace(
    /\p{Cc}|\p{Cf}|\p{Cs}|[\ufffe\uffff]/gu,
    (control) => `\\u{${control.codePointAt(0)!.toString(16).padStart(2, "0")}}`,
  );
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `15.1 GiB`; below 1 KiB the exact number of bytes. */
export function formatBytes(count: number): string {
  const power = count < 1024 ? 0 : Math.min(Math.floor(Math.log2(count) / 10), BINARY.length - 1);
  return `${power === 0 ? count : (count / 1024 ** power).toFixed(1)} ${BINARY[power]}`;
}

/** `8,101,234,567` */
export const formatCount = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, ",");

/** `1 tensor`, `720 tensors` */
export const formatQuantity = (count: number, one: string, many = `${one}s`): string =>
  `${formatCount(count)} ${count === 1 ? one : many}`;

/** Three digits of a measured value; `0` means exactly zero. */
export function formatMeasure(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 0.001 && size < 1e6 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

export const formatPercent = (fraction: number): string => `${Number((fraction * 100).toPrecision(4))} %`;
