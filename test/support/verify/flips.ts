/** Single bits that flip in a packed file, at seeded places, and what becomes of each. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { packed } from "../../../formats/packed/format.ts";
import { check } from "../../../src/api/check.ts";
import { convert } from "../../../src/api/convert.ts";
import { verify } from "../../../src/api/verify.ts";
import type { SealedSpan } from "../../../src/core/checkpoint.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { fileStore } from "../../../src/io/file.ts";
import { filesOf } from "../goldens.ts";
import { flip, partsOf } from "../packed.ts";
import { randomFrom } from "../random.ts";

/** What a bit belongs to. */
export type Part = "front" | "tensor" | "side file" | "header" | "padding" | "certificate";

export interface Flip {
  readonly at: number;
  readonly bit: number;
  readonly part: Part;
  /** what is sealed there */
  readonly seal?: SealedSpan;
}

/** `each` flips of every part of a file. */
export async function flipsIn(file: string, each: number, seed: number): Promise<readonly Flip[]> {
  const bytes = readFileSync(file);
  const seals = (await packed.read(await fileStore(file))).seals!;
  const { frontEnd, dataEnd } = partsOf(bytes);
  const random = randomFrom(seed);
  const flips = new Map<Part, Flip[]>();
  const partOf = (at: number): Pick<Flip, "part" | "seal"> => {
    if (at < frontEnd) return { part: "front" };
    if (at >= dataEnd) return { part: "certificate" };
    const seal = seals.find(({ offset, size }) => at >= offset && at < offset + size);
    if (seal === undefined) return { part: "padding" };
    if (seal.tensor !== undefined) return { part: "tensor", seal };
    return { part: seal.what.startsWith("the header of") ? "header" : "side file", seal };
  };
  const parts: readonly Part[] = ["front", "tensor", "side file", "header", "padding", "certificate"];
  // padding and headers are a small share of the bytes: places are drawn until each part has its number
  while (parts.some((part) => (flips.get(part)?.length ?? 0) < each)) {
    const at = random(bytes.byteLength);
    const found = { at, bit: random(8), ...partOf(at) };
    const list = flips.get(found.part) ?? [];
    flips.set(found.part, list);
    if (list.length < each) list.push(found);
  }
  return [...flips.values()].flat();
}

export interface Outcome {
  /** of each command: what it was refused with, what it found, or its verdict */
  readonly convert: string;
  readonly verify: string;
  readonly check: string;
  /** what `convert` wrote is not the origin, byte for byte; false where it wrote nothing */
  readonly wrong: boolean;
  /** all messages */
  readonly said: string;
}

/** Converts, verifies against its origin and checks a file in which one bit is another. */
export async function outcomeOf(
  file: string,
  origin: string,
  { at, bit }: Flip,
  work: string,
): Promise<Outcome> {
  const damaged = flip(file, join(work, "flipped.isologit"), at, bit);
  const out = join(work, "out");
  const said: string[] = [];
  const told = async (run: () => Promise<string>) => {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof IsologitError)) throw error;
      said.push(`${error.message} ${error.at.tensor ?? ""} ${error.at.file ?? ""}`);
      return `${error.code} ${error.exit}`;
    }
  };
  rmSync(out, { recursive: true, force: true });
  const converted = await told(async () => {
    return String((await convert(damaged, out, { to: "hf", verify: "bytes" })).verification?.verdict);
  });
  const wrong =
    converted === "same" && JSON.stringify([...filesOf(out)]) !== JSON.stringify([...filesOf(origin)]);
  const verified = await told(async () => (await verify(origin, damaged, { verify: "bytes" })).verdict);
  const findings = (await check(damaged, { read: true })).findings.filter(
    ({ severity }) => severity === "error",
  );
  said.push(...findings.map(({ message, at }) => `${message} ${at.tensor ?? ""} ${at.file}`));
  const checked = findings.map(({ rule }) => rule).join(" ");
  return { convert: converted, verify: verified, check: checked, wrong, said: said.join("\n") };
}

/** Damage is refused by name by each of the three; what harms nothing ends in what was packed. */
export function expectHandled({ part, seal }: Flip, { convert, verify, check, wrong, said }: Outcome): void {
  expect(wrong).toBe(false);
  switch (part) {
    case "front":
      for (const outcome of [convert, verify]) expect(outcome).toMatch(/^[A-Z_]+ 3$/);
      expect(check).not.toBe("");
      expect(said).toContain("flipped.isologit");
      return;
    case "tensor":
    case "side file":
    case "header":
      expect([convert, verify]).toEqual(["DIGEST_MISMATCH 3", "DIGEST_MISMATCH 3"]);
      expect(check).toContain("digest-mismatch");
      for (const message of said.split("\n").filter((line) => line.includes("what was written"))) {
        expect(message).toContain(seal!.what);
        expect(message).toContain("flipped.isologit");
      }
      return;
    case "padding":
      expect([convert, verify, check]).toEqual(["same", "same", "padding-invalid"]);
      return;
    case "certificate":
      // its last 16 bytes say that it is one: without them it is surplus
      expect([`${convert} ${verify}`]).toContain(
        convert === "same" ? "same same" : "TRAILING_BYTES 3 TRAILING_BYTES 3",
      );
      return;
    default:
      part satisfies never;
  }
}
