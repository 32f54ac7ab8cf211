/** The most probable tokens beside those that an independent program recorded, and beside all logits. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type LogitsOptions, logits } from "../../src/api/logits.ts";
import type { Event } from "../../src/core/events.ts";
import { arraysOf, floatsOf, golden, idsOf, type StoredArray, workFolder } from "../support/goldens.ts";
import { minipuzzle, parent } from "../support/minipuzzle.ts";

const work = workFolder();
const prompts: readonly (readonly number[])[] = JSON.parse(
  readFileSync(minipuzzle("parent.heldout.json"), "utf8"),
);
let files = 0;

async function recorded(source: string, options: Partial<LogitsOptions>) {
  const out = join(work, `top-${files++}.safetensors`);
  const report = await logits(source, { out, backend: "wasm", threads: 1, ...options });
  return { out, report, arrays: await arraysOf(out) };
}

const intsOf = ({ bytes }: StoredArray): Int32Array => new Int32Array(bytes.slice().buffer);

describe("the golden", () => {
  it("is met: ids exactly, log probabilities as an F32 run may", async () => {
    const { arrays, report } = await recorded(parent, { prompts, topK: 8 });
    expect(report).toMatchObject({ tokens: 163, prompts: 2, topK: 8, vocab: 512 });
    const theirs = await arraysOf(minipuzzle("parent.teacher.safetensors"));
    expect([...arrays.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [name, array] of theirs) {
      const own = arrays.get(name)!;
      expect([own.dtype, own.shape], name).toEqual([array.dtype, array.shape]);
      if (name.startsWith("input_ids")) expect(idsOf(own)).toEqual(idsOf(array));
      else if (name.startsWith("topk.ids")) expect(intsOf(own)).toEqual(intsOf(array));
      else
        for (const [i, value] of floatsOf(array).entries())
          expect(Math.abs(floatsOf(own)[i]! - value), `${name}[${i}]`).toBeLessThan(
            2e-5 * Math.max(1, Math.abs(value)),
          );
    }
  });

  it("has the same bytes in several readings, and with two threads", async () => {
    const once = await recorded(parent, { prompts, topK: 8 });
    const phases: Event[] = [];
    const watch = (event: Event) => event.type === "phase" && phases.push(event);
    const [narrow, wide] = [
      await recorded(parent, { prompts, topK: 8, memoryBytes: 650 << 10, watch }),
      await recorded(parent, { prompts, topK: 8, threads: 2 }),
    ];
    expect(phases).toHaveLength(2);
    for (const { out } of [narrow, wide]) expect(readFileSync(out).equals(readFileSync(once.out))).toBe(true);
  });
});

it("of the whole vocabulary is a sorted softmax, and a prompt does not see the prompt before it", async () => {
  const { arrays } = await recorded(parent, { prompts, topK: 512 });
  const all = floatsOf((await recorded(parent, { ids: prompts[1]! })).arrays.get("logits")!);
  const [ids, logprobs] = [intsOf(arrays.get("topk.ids.1")!), floatsOf(arrays.get("topk.logprobs.1")!)];
  const sums = floatsOf(arrays.get("logsumexp.1")!);
  for (let t = 0; t < prompts[1]!.length; t++) {
    const row = [...ids.subarray(t * 512, (t + 1) * 512)];
    expect([...row].sort((a, b) => a - b)).toEqual([...Array(512).keys()]);
    const own = logprobs.subarray(t * 512, (t + 1) * 512);
    expect([...own].sort((a, b) => b - a)).toEqual([...own]);
    expect(own.reduce((sum, logprob) => sum + Math.exp(logprob), 0)).toBeCloseTo(1, 5);
    for (const [i, id] of row.entries())
      expect(Math.abs(own[i]! + sums[t]! - all[t * 512 + id]!)).toBeLessThan(1e-4);
  }
});

it.each([
  [{ topK: 0 }, /`topK` is 0/],
  [{ topK: 513 }, /`topK` is 513/],
  [{ topK: 4, hidden: true }, /`hidden`/],
  [{ prompts: [[1], [2]] }, /2 prompts/],
  [{ prompts: [[1], 2] as unknown as number[][], topK: 1 }, /prompt 1 is not a list/],
] as const)("%o is refused", async (options, message) => {
  const error = await recorded(golden("tiny"), options as Partial<LogitsOptions>).then(
    () => null,
    (refused) => refused,
  );
  expect(error?.code).toBe("USAGE");
  expect(error.message).toMatch(message);
});
