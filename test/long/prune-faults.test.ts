/** The n-th call of the file system fails while a model is pruned: no partial destination, and a resume gives the same bytes. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { counted, withFault } from "../support/faulty-io.ts";
import { filesOf, workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-M");
const path = join(work, "cut");
const options: PruneOptions = {
  ...{ drop: [1], ids: [1, 2, 3], to: "hf", threads: 1 },
  checkpointBytes: 2_000,
};

it.each([
  ["write", "ENOSPC"],
  ["sync", "EIO"],
  ["rename", "EIO"],
] as const)("every %s, %s", { timeout: 600_000 }, async (call, code) => {
  const run = () => prune(model, path, options);
  const counts = await counted(run);
  const right = filesOf(path);
  rmSync(path, { recursive: true });
  expect(counts.get(call) ?? 0).toBeGreaterThan(0);
  for (let n = 1; n <= counts.get(call)!; n++) {
    const told = `${call} ${n}`;
    const outcome = await withFault(call, n, code, run);
    if (outcome.status === "rejected") {
      expect(outcome.reason, told).toBeInstanceOf(IsologitError);
      expect(outcome.reason.exit, told).toBe(4);
      expect(existsSync(path) ? filesOf(path) : right, told).toEqual(right);
      const { verification } = await prune(model, path, {
        ...options,
        resume: existsSync(`${path}.partial`),
      });
      expect(verification?.verdict, told).toBe("within");
    }
    expect(filesOf(path), told).toEqual(right);
    expect(existsSync(`${path}.partial`), told).toBe(false);
    rmSync(path, { recursive: true });
  }
});
