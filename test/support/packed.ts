/** Packed files with one thing wrong: a bit flipped, or seals that are whole and lie. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

/** Where a packed file's parts lie, by its own head. */
export function partsOf(file: Uint8Array): {
  readonly seals: { readonly offset: number; readonly size: number };
  readonly frontEnd: number;
  readonly dataEnd: number;
} {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const at = (offset: number) => Number(view.getBigUint64(offset, true));
  return { seals: { offset: at(40), size: at(48) }, frontEnd: at(56), dataEnd: at(64) };
}

/** A copy of a file in which one bit is another. */
export function flip(from: string, to: string, at: number, bit = 0): string {
  const bytes = readFileSync(from);
  bytes[at]! ^= 1 << bit;
  writeFileSync(to, bytes);
  return to;
}

/** A copy of a packed file whose seals were changed and then sealed anew: opening finds nothing wrong. */
export function sealAnew(from: string, to: string, change: (seals: Uint8Array) => void): string {
  const bytes = readFileSync(from);
  const { offset, size } = partsOf(bytes).seals;
  const seals = bytes.subarray(offset, offset + size);
  change(seals);
  const digest = createHash("sha256").update(bytes.subarray(72, 104)).update(seals.subarray(0, -32));
  seals.set(digest.digest(), size - 32);
  writeFileSync(to, bytes);
  return to;
}
