/** Single bits that flip in a certified checkpoint, its certificate included: each is found. */
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { verify } from "../../../src/api/verify.ts";
import { IsologitError } from "../../../src/core/errors.ts";

/** A file, "" for the checkpoint itself, and an offset in it. */
type Place = readonly [file: string, offset: number];

/** Offsets that meet the start, the end and everything between. */
const offsetsIn = (size: number, count: number) => [
  ...new Set([
    0,
    7,
    8,
    size - 1,
    ...Array.from({ length: count }, (_, i) => Math.floor(((i + 0.37) * size) / count)),
  ]),
];

const placesIn = (address: string, count: number): readonly Place[] =>
  statSync(address).isFile()
    ? offsetsIn(statSync(address).size, count).map((offset) => ["", offset])
    : readdirSync(address).flatMap((file) =>
        offsetsIn(statSync(join(address, file)).size, count).map((offset): Place => [file, offset]),
      );

/** "red" for a verdict that is bad and for a refusal of a damaged input, else what went wrong instead. */
async function colourOf(address: string): Promise<string> {
  try {
    const { verdict } = await verify(address, undefined, { verify: "bytes", threads: 1 });
    return verdict === "different" ? "red" : verdict;
  } catch (error) {
    // a name that was damaged may also be one of a file that is not there
    const known = error instanceof IsologitError && [2, 3, 4].includes(error.exit) && error.code !== "USAGE";
    return known ? "red" : String(error);
  }
}

/**
 * @param address a certified checkpoint
 * @param count   places in a file, besides its ends
 * @param bits    which bits of a place flip, each alone
 * @param work    a folder for a copy
 */
export async function expectFlipsRed(
  address: string,
  count: number,
  bits: (place: Place) => readonly number[],
  work: string,
): Promise<void> {
  const copy = join(work, address.endsWith(".isologit") ? "flipped.isologit" : "flipped");
  rmSync(copy, { recursive: true, force: true });
  cpSync(address, copy, { recursive: true });
  for (const place of placesIn(copy, count)) {
    const [file, offset] = place;
    const path = file === "" ? copy : join(copy, file);
    const bytes = readFileSync(path);
    for (const bit of bits(place)) {
      const broken = Uint8Array.from(bytes);
      broken[offset]! ^= bit;
      writeFileSync(path, broken);
      expect(await colourOf(copy), `${file} ${offset} ^ ${bit}`).toBe("red");
    }
    writeFileSync(path, bytes);
  }
  expect(await colourOf(copy)).toBe("same");
}
