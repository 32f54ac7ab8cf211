/** A placement carried out in memory, as `convert` would: every byte of every file is written exactly once. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { expect } from "vitest";
import { CHUNK_BYTES, type TensorDigests, type WriteRequest, type Writer } from "../../formats/format.ts";
import { tensorKey } from "../../src/core/checkpoint.ts";
import { sha256 } from "../../src/core/hash.ts";
import { readRange, type Store } from "../../src/core/io.ts";

/** @param bytesOf  the elements of a wanted tensor, by its key */
export async function carriedOut(
  writer: Writer,
  wanted: WriteRequest,
  bytesOf: (key: string) => Promise<Uint8Array>,
  from: Store,
): Promise<Map<string, Uint8Array>> {
  const place = await writer.place(wanted);
  const files = new Map(place.files.map(({ path, size }) => [path, new Uint8Array(size)]));
  const times = new Map(place.files.map(({ path, size }) => [path, new Uint8Array(size)]));
  const put = (file: string, offset: number, bytes: Uint8Array) => {
    files.get(file)!.set(bytes, offset);
    const count = times.get(file)!;
    for (let i = 0; i < bytes.byteLength; i++) count[offset + i]!++;
  };
  expect(place.tensors.map(({ name }) => name).sort()).toEqual(wanted.tensors.map(tensorKey).sort());
  const sealed = new Map<string, TensorDigests>();
  for (const { name, file, offset } of place.tensors) {
    const bytes = await bytesOf(name);
    put(file, offset, bytes);
    const crcs: number[] = [];
    for (let at = 0; at < bytes.byteLength; at += CHUNK_BYTES)
      crcs.push(crc32(bytes.subarray(at, at + CHUNK_BYTES)));
    sealed.set(name, { sha256: sha256(bytes), crc32: crcs });
  }
  for (const { file, offset, bytes } of place.inline) put(file, offset, bytes);
  for (const { file, offset, from: span } of place.copies) {
    await using source = await from.open(span.file);
    put(file, offset, await readRange(source, span.offset, span.size));
  }
  const seals = (await writer.seal?.(wanted, place, sealed)) ?? [];
  expect(seals.map(({ byteLength }) => byteLength)).toEqual(place.seals.map(({ size }) => size));
  for (const [i, { file, offset }] of place.seals.entries()) put(file, offset, seals[i]!);
  for (const [path, count] of times) {
    const wrong = count.findIndex((n) => n !== 1);
    expect(wrong, `${path}: byte ${wrong} is written ${count[wrong]} times`).toBe(-1);
  }
  return files;
}

export function saved(files: ReadonlyMap<string, Uint8Array>, folder: string): string {
  for (const [path, bytes] of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  return folder;
}
