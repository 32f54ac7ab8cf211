/**
 * The n-th call of the file system fails, for each n, in a conversion that is divided into tasks: while its plan is written,
 * in a task that writes, in a task that compares, and in the merge. Run again, they give the bytes of one process.
 */
import { cpSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { bytesAt, failEach, removeAll, type Written } from "../support/fault-loop.ts";
import { CHANGES, EVERY } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";
import { divide } from "../support/tasks.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");

/** Calls that need room or permission on the disk. */
const WRITING = ["mkdir", "open", "write", "writeFile", "appendFile", "rename"];

async function failEachCall(written: Written, calls: readonly string[]): Promise<void> {
  await failEach(written, calls, "EIO");
  for (const code of ["ENOSPC", "EDQUOT", "EACCES"]) await failEach(written, WRITING, code);
}

it("a plan file", async () => {
  const folder = join(work, "planned");
  mkdirSync(folder);
  const path = join(folder, "plan.json");
  await failEachCall({ path, run: () => plan(model, join(work, "x"), { out: path }) }, EVERY);
  expect(readdirSync(folder)).toEqual([]);
});

type Steps = Omit<Written, "path" | "prepare"> & { readonly prepare?: () => Promise<void> };

/** A conversion in a folder of its own, as steps that are run in order. */
async function stepsOf(name: string, { overwrite = false, ...options }: ConvertOptions) {
  const folder = join(work, name);
  mkdirSync(folder);
  const divided = await divide(folder, model, "out", options);
  const path = divided.destination;
  await divided.alone();
  const right = bytesAt(join(folder, "alone-out"));
  const old = async () => {
    if (overwrite) cpSync(model, path, { recursive: true });
  };
  return {
    staging: divided.staging,
    write: (index: number, count: number) => () =>
      divided.task(index, count, { overwrite, checkpointBytes: 9_000 }),
    compare: (index: number, count: number) => () => divided.compared(index, count, { overwrite }),
    merge: () => divided.merged({ overwrite }),
    mergeAgain: () => divided.merged(),
    /** refuses to begin unless so many tasks have compared */
    mergeCompared: (tasks: number) => () => divided.merged({ overwrite, tasks }),
    async fail(written: Steps, calls: readonly string[]) {
      const prepare = inOrder(old, written.prepare);
      await inOrder(prepare, written.run, written.finish)();
      expect(bytesAt(path)).toEqual(right);
      removeAll(path);
      await failEachCall({ ...written, path, prepare }, calls);
    },
  };
}

/** One step of steps that are run one after the other. */
const inOrder =
  (...steps: readonly ((() => Promise<unknown>) | undefined)[]) =>
  async () => {
    for (const step of steps) await step?.();
  };

describe("one file, and every call", async () => {
  const { write, compare, merge, mergeCompared, fail } = await stepsOf("one file", { to: "packed" });

  it("of a task that writes", async () => {
    await fail({ run: write(0, 2), finish: inOrder(write(1, 2), merge) }, EVERY);
  });

  it("of a task that compares", async () => {
    await fail({ prepare: inOrder(write(0, 1)), run: compare(0, 1), finish: mergeCompared(1) }, EVERY);
  });

  it("of a merge", async () => {
    await fail({ prepare: inOrder(write(0, 1)), run: merge }, EVERY);
  });
});

describe("a folder that is replaced, and every change", async () => {
  const options = { to: "hf", dtype: "f32", maxShardBytes: 60_000, overwrite: true } as const;
  const { staging, write, compare, merge, mergeAgain, mergeCompared, fail } = await stepsOf(
    "folder",
    options,
  );

  it("of a task that writes beside another", async () => {
    await fail({ prepare: inOrder(write(1, 2)), run: write(0, 2), finish: merge }, CHANGES);
  });

  it("of a merge of what tasks compared", async () => {
    const prepare = inOrder(write(0, 2), write(1, 2), compare(0, 2), compare(1, 2));
    // with `overwrite`, a destination beside which nothing is staged is taken for the old one
    const mend = () => (readdirSync(staging).length > 0 ? mergeCompared(2)() : mergeAgain());
    await fail({ prepare, run: mergeCompared(2), mend }, CHANGES);
  });
});

describe("forward passes", async () => {
  const options = { to: "packed", verify: "logits", ids: [1, 2, 3] } as const;
  const { write, compare, mergeCompared, fail } = await stepsOf("passes", options);

  it("every change of a task that runs layers", async () => {
    await fail({ prepare: inOrder(write(0, 1)), run: compare(0, 1), finish: mergeCompared(1) }, CHANGES);
  });

  it("every file that a merge reads of what tasks have run", async () => {
    const prepare = inOrder(write(0, 1), compare(0, 1));
    await fail({ prepare, run: mergeCompared(1) }, ["readFile", "readdir"]);
  });
});
