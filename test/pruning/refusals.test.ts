/** What cannot be cut is refused before a byte is written, with the exit status of its cause. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { highest, highestInGroups } from "../../src/pruning/select.ts";
import { puzzle, scoresFile } from "../support/cuts.ts";
import { familyGolden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const importance = scoresFile(join(work, "scores.safetensors"));
const dst = join(work, "dst");

async function refused(
  options: PruneOptions,
  code: string,
  exit: number,
  saying: string,
  source = puzzle("parent"),
) {
  const failure = await prune(source, dst, options).then(
    () => null,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(IsologitError);
  expect(failure).toMatchObject({ code, exit, message: expect.stringContaining(saying) });
  expect(existsSync(dst)).toBe(false);
  expect(existsSync(`${dst}.partial`)).toBe(false);
}

describe("shapes that cannot be", () => {
  it.each<[PruneOptions, string]>([
    [{}, "nothing says what stays"],
    [{ ffn: 129 }, "the source has 128"],
    [{ ffn: 0 }, "expected at least 1"],
    [{ mambaHeads: 7 }, "multiple of 2"],
    [{ heads: 3 }, "multiple of 2"],
    [{ hidden: 65 }, "the source has 64"],
    [{ drop: [19] }, "layers 0 to 18"],
    [{ drop: [3, 3] }, "twice"],
    [{ drop: Array.from({ length: 19 }, (_, i) => i) }, "none would be left"],
    [{ layers: { mamba: 9 } }, "the source has 8"],
    [{ layers: { mamba: 0, attention: 0, mlp: 0 } }, "keeps no layer"],
    [{ layers: { mambo: 1 } }, "expected one of mamba, attention, mlp, moe"],
    [{ layers: { mlp: 4 }, drop: [1] }, "expected one of them"],
    [{ layers: { mlp: 4 } }, "scores must say"],
    [{ ffn: 96 }, "scores must say"],
  ])("%o: %s", async (options, saying) => {
    await refused(options, "USAGE", 2, saying);
  });

  it("ranks that do not divide what is left", async () => {
    const options = { mambaHeads: 6, importance, to: "megatron", tp: 4 };
    await refused(options, "PLAN_IMPOSSIBLE", 2, "");
  });

  it("a family without rules", async () => {
    await refused({ ffn: 8 }, "UNSUPPORTED", 3, "llama cannot be pruned", familyGolden("llama"));
  });

  it("a destination that exists, before the source is read", async () => {
    const taken = join(work, "taken");
    mkdirSync(taken);
    writeFileSync(join(taken, "x"), "x");
    await expect(prune(puzzle("parent"), taken, { drop: [1] })).rejects.toMatchObject({
      code: "DESTINATION_EXISTS",
    });
  });
});

describe("scores", () => {
  /** Replaces bytes of the file from the end on: those of the last tensors. */
  const edited = (name: string, edit: (bytes: Buffer) => Buffer) =>
    scoresFile(join(work, name), undefined, edit);
  const nan = (bytes: Buffer) => {
    const at = bytes.indexOf(Buffer.from(new Float64Array([Number.NaN]).buffer));
    expect(at).toBe(-1);
    return Buffer.concat([
      bytes.subarray(0, bytes.length - 8 * 4096),
      bytes.subarray(bytes.length - 8 * 4096).fill(0xff),
    ]);
  };

  it.each<[string, string, string, number]>([
    ["of another model", scoresFile(join(work, "other"), "0".repeat(64)), "USAGE", 2],
    ["that name no model", puzzle("parent.importance.safetensors"), "USAGE", 2],
    ["in no file", join(work, "absent"), "NOT_FOUND", 4],
    ["without their end", edited("short", (bytes) => bytes.subarray(0, -5)), "TRUNCATED", 3],
    ["that are not finite", edited("nan", nan), "NON_FINITE", 3],
  ])("%s", async (_, file, code, exit) => {
    await refused({ ffn: 96, mambaHeads: 6, hidden: 48, importance: file }, code, exit, "");
  });

  it("that are missing are named", async () => {
    const renamed = edited("renamed", (bytes) => {
      const text = bytes.toString("latin1").replace("ffn.contribution.16", "ffn.contributiom.16");
      return Buffer.from(text, "latin1");
    });
    await refused({ ffn: 96, importance: renamed }, "USAGE", 2, "ffn.contribution.16");
  });

  it("of another shape", async () => {
    const shorter = edited("shape", (bytes) => {
      const text = bytes.toString("latin1");
      const [entry] = /"hidden\.activation":\{[^}]*\}/.exec(text)!;
      const other = entry.replace("[64]", "[8,8]");
      const header = text.replace(entry, other);
      const length = bytes.readBigUInt64LE(0) + BigInt(other.length - entry.length);
      const edited = Buffer.from(header, "latin1");
      edited.writeBigUInt64LE(length, 0);
      return edited;
    });
    await refused({ hidden: 48, importance: shorter }, "SHAPE_MISMATCH", 3, "expected [64]");
  });
});

describe("selection", () => {
  it("keeps the lower index of equal scores, in its own order", () => {
    expect(highest([1, 3, 3, 3, 2], 2)).toEqual([1, 2]);
    expect(highest([5, 1, 5, 1, 5], 3)).toEqual([0, 2, 4]);
    expect(highest([0, 0, 0], 1)).toEqual([0]);
  });

  it("keeps as many in each group", () => {
    expect(highestInGroups([9, 8, 7, 6, 1, 2, 3, 4], 4, 2)).toEqual([0, 1, 6, 7]);
  });
});
