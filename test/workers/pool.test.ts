import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { startBands } from "../../src/workers/pipeline.ts";
import { BandWorker, poolSize, WorkerPool } from "../../src/workers/pool.ts";

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

describe("a worker that takes its next job early", () => {
  const letters = (text: string) => text.split("");

  /** Each job is one or more letters; a band is a letter, and is in use until `release` is called with it. */
  async function started(jobs: readonly string[], fails = "") {
    const log: string[] = [];
    const open = new Map<string, () => void>();
    const release = async (letter: string) => {
      while (!open.has(letter)) await new Promise((wake) => setTimeout(wake, 1));
      open.get(letter)!();
    };
    const pool = new WorkerPool(poolSize(2 ** 21, 1));
    const running = pool.eachStarted(jobs, async (job, worker) => {
      const { ended } = await startBands(
        worker,
        letters(job),
        async (letter) => void log.push(`read ${letter}`),
        async (letter) => {
          await new Promise<void>((end) => open.set(letter, end));
          log.push(`wrote ${letter}`);
          if (fails === letter) throw new Error(`no room for ${letter}`);
        },
      );
      return { ended };
    });
    const outcome = running.finally(() => void pool[Symbol.asyncDispose]());
    outcome.catch(() => {}); // the tests await it later
    return { log, release, outcome };
  }

  it("reads the next tensor while the last one is written, and no third one", async () => {
    const { log, release, outcome } = await started(["a", "b", "c"]);
    await release("b");
    expect(log).toEqual(["read a", "read b", "wrote b"]);
    for (const letter of "ac") await release(letter);
    await outcome;
    expect(log.slice(-3)).toEqual(["wrote a", "read c", "wrote c"]);
  });

  it("fills no buffer that is in use", async () => {
    const { log, release, outcome } = await started(["abc", "d"]);
    await release("b");
    await release("c");
    expect(log).not.toContain("read d");
    await release("a");
    await release("d");
    await outcome;
    expect(log.indexOf("read d")).toBeGreaterThan(log.indexOf("wrote a"));
  });

  it("stops at a failure, after what it had started has ended", async () => {
    const { log, release, outcome } = await started(["a", "b", "c"], "a");
    let isOver = false;
    outcome.catch(() => {
      isOver = true;
    });
    await release("a");
    await new Promise((wake) => setTimeout(wake, 20));
    expect(isOver).toBe(false);
    await release("b");
    await expect(outcome).rejects.toThrow("no room for a");
    expect(log).toEqual(["read a", "read b", "wrote a", "wrote b"]);
  });
});
