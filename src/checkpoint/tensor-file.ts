/** Writes a safetensors file whose tensors may be written in any order. It appears at its path only when it is complete. */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { bytesOf, type DType, type Shape } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { pathExists } from "../io/stamps.ts";

export interface TensorEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Writes bytes of a tensor; `at` is in bytes from its start. */
export type WriteTensor = (name: string, at: number, bytes: Uint8Array) => Promise<void>;

/** @throws DESTINATION_EXISTS unless the file may be replaced */
export async function refuseExistingFile(path: string, overwrite: boolean | undefined): Promise<void> {
  if (overwrite !== true && (await pathExists(path)))
    throw new IsologitError("DESTINATION_EXISTS", "the file exists already", { file: path });
}

/**
 * Writes a file; what `fill` does not write is 0. After an error there is no file, and an earlier one stays.
 *
 * @throws the errors of `fill`, IO_FAILED, DISK_FULL
 */
export async function writeTensorFile(
  path: string,
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
  fill: (write: WriteTensor) => Promise<void>,
): Promise<void> {
  const partial = `${path}.partial`;
  try {
    const file = await open(partial, "w");
    try {
      await fill(await writerOf(file, tensors, metadata));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {}); // the first error is reported
    throw systemError(error, { file: path });
  }
}

async function writerOf(
  file: FileHandle,
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): Promise<WriteTensor> {
  const header = encodeHeader(tensors, metadata);
  const offsets = new Map<string, number>();
  let end = header.byteLength;
  for (const { name, dtype, shape } of tensors) {
    offsets.set(name, end);
    end += bytesOf(dtype, shape);
  }
  await writeAll(file, header, 0);
  await file.truncate(end);
  return (name, at, bytes) => writeAll(file, bytes, offsets.get(name)! + at);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; )
    done += (await file.write(bytes, done, bytes.byteLength - done, offset + done)).bytesWritten;
}

/** The bytes of an array of numbers, as safetensors stores them. */
export function bytesOfArray({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
