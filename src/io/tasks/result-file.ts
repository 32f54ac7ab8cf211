/** What a task found, as a file that another process accepts only if it is whole and about the same thing. */
import { readFile, stat } from "node:fs/promises";
import { z } from "zod";
import { systemError } from "../../core/errors.ts";
import { canonicalJson, sha256 } from "../../core/hash.ts";
import { writeWhole } from "../whole-file.ts";

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const File = z.strictObject({ mark: digest, found: z.unknown(), sha256: digest });

/** No model has so many roles that the file of a task is larger. */
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * Writes a result as canonical JSON: complete or not at all.
 *
 * @param mark SHA-256, in hex, of everything that the result is about
 */
export async function writeResult(file: string, mark: string, found: unknown): Promise<void> {
  await writeWhole(file, canonicalJson({ mark, found, sha256: digestOf(mark, found) }));
}

/** @returns null for a file that is missing, is damaged, is about something else, or does not have the form of `schema` */
export async function readResult<T>(file: string, mark: string, schema: z.ZodType<T>): Promise<T | null> {
  try {
    if ((await stat(file)).size > MAX_BYTES) return null;
    const { data } = File.safeParse(JSON.parse(await readFile(file, "utf8")));
    if (data?.mark !== mark || data.sha256 !== digestOf(mark, data.found)) return null;
    return schema.safeParse(data.found).data ?? null;
  } catch (error) {
    if (error instanceof SyntaxError) return null; // a crash cut it short
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw systemError(error, { file });
  }
}

const digestOf = (mark: string, found: unknown): string => sha256(canonicalJson({ mark, found }));

/** A number in such a file: `canonicalJson` writes numbers that are not finite as text. */
export const real = z.union([z.number(), z.enum(["Infinity", "-Infinity", "NaN"]).transform(Number)]);
