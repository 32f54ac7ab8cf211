import { describe, expect, it } from "vitest";
import { sample, storeOf, written } from "../../../fixtures/generate/packed-sample.ts";
import { CHUNK_BYTES, type WriteRequest } from "../../../formats/format.ts";
import { packed } from "../../../formats/packed/format.ts";
import { packedDamage, packedDigests } from "../../../formats/packed/read.ts";
import type { IsologitError } from "../../../src/core/errors.ts";

const file = written(sample);
const field = (offset: number) => Number(new DataView(file.buffer).getBigUint64(offset, true));
/** Where the front ends, by the head itself. */
const FRONT = field(56);

/** The code of what opening throws. */
async function opened(bytes: Uint8Array): Promise<string> {
  return packed.read(storeOf(bytes)).then(
    () => "none",
    (error: IsologitError) => error.code,
  );
}

async function damage(bytes: Uint8Array): Promise<IsologitError[]> {
  const found: IsologitError[] = [];
  for await (const fault of packedDamage(storeOf(bytes))) found.push(fault);
  return found;
}

describe("damage", () => {
  it("any bit of the head, index, seals or config.json that flips is refused on opening", async () => {
    const copy = file.slice();
    for (let at = 0; at < FRONT; at++) {
      for (let bit = 0; bit < 8; bit++) {
        copy[at]! ^= 1 << bit;
        expect(await opened(copy), `byte ${at}, bit ${bit}`).not.toBe("none");
        copy[at]! ^= 1 << bit;
      }
    }
  });

  it("any byte after that is found by reading the file through, and named", async () => {
    const { tensors } = await packed.read(storeOf(file));
    const copy = file.slice();
    for (let at = FRONT; at < file.byteLength; at++) {
      copy[at]! ^= 0x10;
      const found = await damage(copy);
      expect(found, `byte ${at}`).toHaveLength(1);
      const inside = tensors.find(({ name, pieces }) => {
        const from = pieces[0]!.offset;
        return at >= from && at < from + sample.elements.get(name)!.byteLength;
      });
      expect(found[0]!.at.tensor).toBe(inside?.name);
      if (found[0]!.code === "PADDING_INVALID") expect(found[0]!.at.offset).toBe(at);
      else expect(found[0]!.code).toBe("DIGEST_MISMATCH");
      copy[at]! ^= 0x10;
    }
  });

  it("every length short of the whole is refused", async () => {
    for (let size = 0; size < file.byteLength; size++) {
      expect(await opened(file.subarray(0, size)), `${size} bytes`).toBe("TRUNCATED");
    }
  });

  it("the seals of another file are refused, though they fit", async () => {
    const other = written({ ...sample, manifest: { ...sample.manifest, dialect: "xx" } });
    const [at, size] = [field(40), field(48)];
    const mixed = file.slice();
    mixed.set(other.subarray(at, at + size), at);
    expect(await opened(mixed)).toBe("DIGEST_MISMATCH");
  });

  it("is located to the chunk in a tensor of several", async () => {
    const size = 2 * CHUNK_BYTES + 5;
    const manifest: WriteRequest = {
      ...sample.manifest,
      tensors: [{ name: "big", dtype: "U8", shape: [size] }],
    };
    const bytes = written({
      ...sample,
      manifest,
      elements: new Map([["big", new Uint8Array(size).fill(3)]]),
    });
    const start = bytes.byteLength - size;
    expect((await packedDigests(storeOf(bytes))).tensors.get("big")!.crc32).toHaveLength(3);
    bytes[start + CHUNK_BYTES + 77] = 4;
    bytes[bytes.byteLength - 1] = 4;
    const found = await damage(bytes);
    expect(found.map((e) => e.at.offset)).toEqual([start + CHUNK_BYTES, start + 2 * CHUNK_BYTES]);
  });
});
