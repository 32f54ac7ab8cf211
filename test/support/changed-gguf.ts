/** GGUF files with planted faults. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gguf } from "../../formats/gguf/format.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { fileStore } from "../../src/io/file.ts";

/** Makes a copy of a file in `folder`, with the bytes of one tensor changed. @returns its path */
export async function changedTensor(
  folder: string,
  source: string,
  name: string,
  change: (bytes: Buffer, rowBytes: number) => void,
): Promise<string> {
  const path = join(folder, `${name} changed.gguf`);
  const { tensors } = await gguf.read(await fileStore(source));
  const { dtype, shape, pieces } = tensors.find((tensor) => tensor.name === name)!;
  const bytes = readFileSync(source);
  const [begin, size] = [pieces[0]!.offset, bytesOf(dtype, shape)];
  change(bytes.subarray(begin, begin + size), bytesOf(dtype, [shape.at(-1)!]));
  writeFileSync(path, bytes);
  return path;
}

/** Exchanges two runs of bytes. */
export function exchange(bytes: Buffer, a: number, b: number, size: number): void {
  const kept = Buffer.from(bytes.subarray(a, a + size));
  bytes.copyWithin(a, b, b + size);
  kept.copy(bytes, b);
}
