import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readHeader } from "../../formats/codec/safetensors.ts";
import { sha256 } from "../../src/core/hash.ts";
import { memorySource } from "../support/memory-store.ts";

/** What the reference implementation wrote: `fixtures/generate/safetensors_written.py`. */
const folder = new URL("../../fixtures/safetensors-written/", import.meta.url);
const expected: Record<string, { metadata: unknown; tensors: Record<string, [string, number[], string]> }> =
  JSON.parse(readFileSync(new URL("expected.json", folder), "utf8"));

describe("a file by the reference implementation reads as it was meant", () => {
  it.each(Object.entries(expected))("%s", async (name, { metadata, tensors }) => {
    const bytes = new Uint8Array(readFileSync(new URL(`${name}.safetensors`, folder)));
    const header = await readHeader(memorySource(name, bytes));
    expect(header.metadata).toEqual(metadata);
    const read = header.tensors.map(({ name, dtype, shape, begin, end }) => {
      return [name, [dtype, shape, sha256(bytes.subarray(begin, end))]];
    });
    expect(Object.fromEntries(read)).toEqual(tensors);
  });
});
