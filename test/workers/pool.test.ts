import { createHash } from "node:crypto";
import { expect, it } from "vitest";
import { BandWorker } from "../../src/workers/pool.ts";

it("a lane whose thread has ended fails what it is asked, waiting or later", async () => {
  const lane = new BandWorker({ bufferBytes: 2 ** 18, heldBytes: 0 });
  await lane.call({ op: "finish" });
  const closing = lane.close();
  const waiting = lane.call({ op: "finish" });
  const failed = expect(waiting).rejects.toMatchObject({ code: "INTERNAL" });
  await closing;
  await failed;
  await expect(lane.call({ op: "finish" })).rejects.toMatchObject({ code: "INTERNAL" });
});

/** Bands of two tensors, as 4-byte elements: what the lane says of each, and the digests of all. */
async function compared(bands: readonly (readonly [a: string, b: string])[]) {
  const lane = new BandWorker({ bufferBytes: 2 ** 18, heldBytes: 0 });
  const [slot] = lane.buffers;
  const differsAt: number[] = [];
  for (const [a, b] of bands) {
    slot!.bytes.set(Buffer.from(a + b));
    const [size, toSize] = [a.length, b.length];
    const call = { op: "pair", a: slot!.at, size, b: slot!.at + size, toSize, count: size / 4 } as const;
    differsAt.push((await lane.call(call)).differsAt);
  }
  const { source, sha256 } = await lane.call({ op: "finish" });
  const afterwards = await lane.call({ op: "finish" });
  await lane.close();
  return { differsAt, source, sha256, afterwards: afterwards.source };
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

it.each([
  [
    "equal to their end",
    [
      ["aaaabbbb", "aaaabbbb"],
      ["cccc", "cccc"],
    ],
    [-1, -1],
  ],
  [
    "parted in the first band",
    [
      ["aaaabbbb", "aaaabbxb"],
      ["cccc", "cccc"],
    ],
    [1, -1],
  ],
  [
    "parted in a later band, then equal",
    [
      ["aaaa", "aaaa"],
      ["bbbb", "xbbb"],
      ["cccc", "cccc"],
    ],
    [-1, 0, -1],
  ],
] as const)("digests both of a pair: %s", async (_, bands, differsAt) => {
  const result = await compared(bands);
  expect(result).toEqual({
    differsAt,
    source: sha256(bands.map(([a]) => a).join("")),
    sha256: sha256(bands.map(([, b]) => b).join("")),
    afterwards: sha256(""),
  });
});
