/** The golden cuts in fixtures/minipuzzle, and the scores that chose them with the record of their model. */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { encodeHeader, parseHeader } from "../../formats/codec/safetensors.ts";
import type { PruneOptions } from "../../src/api/pruning/prune.ts";
import { arraysOf } from "./goldens.ts";

export const puzzle = (name: string): string =>
  new URL(`../../fixtures/minipuzzle/${name}`, import.meta.url).pathname;

/** Content root of `parent`; a test computes it. */
export const PARENT_ROOT = "36a0db4e34f7c0e59065c1899031088cbd5d3ce8b694516d73b71dd1dc5c615c";

export interface GoldenCase {
  readonly want: Readonly<Record<string, number | string | readonly number[]>>;
  readonly keep: {
    readonly layers: readonly number[];
    readonly ffn?: Readonly<Record<string, readonly number[]>>;
    readonly mamba_heads?: Readonly<Record<string, readonly number[]>>;
    readonly heads?: Readonly<Record<string, readonly number[]>>;
    readonly hidden?: readonly number[];
  };
  readonly config: Readonly<Record<string, unknown>>;
  readonly parameters: number;
  readonly damage: Readonly<Record<string, number>>;
  readonly tensors: Readonly<Record<string, string>>;
}

export const cases: Readonly<Record<string, GoldenCase>> = JSON.parse(
  readFileSync(puzzle("parent.cases.json"), "utf8").replaceAll(": Infinity", ": null"),
);

export const heldout: readonly (readonly number[])[] = JSON.parse(
  readFileSync(puzzle("parent.heldout.json"), "utf8"),
);

/** The options that ask for a golden case. */
export function optionsOf({ want }: GoldenCase): PruneOptions {
  const { mamba, attention, mlp, ffn, mamba_heads, heads, hidden, drop, score } = want;
  const counts = { mamba, attention, mlp };
  const layers = Object.entries(counts).filter(([, count]) => count !== undefined);
  return {
    ...(layers.length > 0 && { layers: Object.fromEntries(layers) as Record<string, number> }),
    ...Object.fromEntries(
      Object.entries({ ffn, mambaHeads: mamba_heads, heads, hidden, drop, score }).filter(
        ([, value]) => value !== undefined,
      ),
    ),
  };
}

/** Writes the golden scores with the record of the model that they are of. @returns path */
export function scoresFile(path: string, root = PARENT_ROOT, edit = (bytes: Buffer) => bytes): string {
  const before = readFileSync(puzzle("parent.importance.safetensors"));
  const header = parseHeader(before, "scores");
  const isologit = JSON.stringify({ root, prompts: { count: 4, tokens: 136, sha256: "0".repeat(64) } });
  const after = encodeHeader(header.tensors, { format: "pt", isologit });
  writeFileSync(path, edit(Buffer.concat([after, before.subarray(header.dataOffset)])));
  return path;
}

/** SHA-256 of the bytes of each tensor of a safetensors file. */
export function digestsOf(path: string): Readonly<Record<string, string>> {
  const bytes = readFileSync(path);
  return Object.fromEntries(
    parseHeader(bytes, path).tensors.map(({ name, begin, end }) => [
      name,
      createHash("sha256").update(bytes.subarray(begin, end)).digest("hex"),
    ]),
  );
}

export const logitsOfCases = () => arraysOf(puzzle("parent.cases.safetensors"));

/** Units of `parent-planted` that do nothing, by layer: rows of up, and columns of down, that are zero. */
const DEAD: Readonly<Record<number, readonly number[]>> = {
  1: [7, 12, 17, 22, 27, 32, 37, 42, 47],
  3: [21, 26, 31, 36, 41, 46, 51, 56, 61],
  6: [42, 47, 52, 57, 62, 67, 72, 77, 82],
  8: [56, 61, 66, 71, 76, 81, 86, 91, 96],
  11: [77, 82, 87, 92, 97, 102, 107, 112, 117],
  13: [91, 96, 101, 106, 111, 116, 3, 121, 126],
  16: [4, 9, 112, 117, 122, 127, 14, 19, 24],
  18: [3, 8, 13, 18, 23, 126, 28, 33, 38],
};

/** Writes scores that are 0 for the dead units of `parent-planted`. @returns path */
export function plantedScores(path: string, root: string): string {
  const layers = Object.entries(DEAD);
  const size = 4 * 128;
  const tensors = layers.map(([layer], i) => {
    const name = `ffn.contribution.${layer}`;
    return { name, dtype: "F32" as const, shape: [128], begin: i * size, end: (i + 1) * size };
  });
  const values = layers.flatMap(([, dead]) =>
    Array.from({ length: 128 }, (_, unit) => (dead.includes(unit) ? 0 : 1)),
  );
  const header = encodeHeader(tensors, { isologit: JSON.stringify({ root }) });
  writeFileSync(path, Buffer.concat([header, Buffer.from(Float32Array.from(values).buffer)]));
  return path;
}
