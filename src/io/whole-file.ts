/** Text files that appear complete or not at all. */
import { randomBytes } from "node:crypto";
import { rename, rm, writeFile } from "node:fs/promises";
import { systemError } from "../core/errors.ts";

/** Writes or replaces a file: a reader finds the old content or the new. @throws IO_FAILED, DISK_FULL */
export async function writeWhole(file: string, text: string): Promise<void> {
  const part = `${file}.${randomBytes(4).toString("hex")}.partial`;
  try {
    await writeFile(part, text);
    await rename(part, file);
  } catch (error) {
    await rm(part, { force: true }).catch(() => {}); // the first error is reported
    throw systemError(error, { file });
  }
}
