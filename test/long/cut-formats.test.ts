import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { cases, digestsOf, optionsOf, PARENT_ROOT, puzzle, scoresFile } from "../support/cuts.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const importance = scoresFile(join(work, "scores.safetensors"));
const ids = Array.from({ length: 24 }, (_, t) => (37 * t + 11) % 512);
const everything: PruneOptions = { ...optionsOf(cases.everything!), importance, ids };

const SOURCES = [
  ["packed", "parent.isologit", {}],
  ["nemo2", "parent-nemo2", {}],
  ["bridge", "parent-bridge", {}],
  ["megatron", "parent-ranks", { tp: 2 }],
] as const;

for (const [to, name, ranks] of SOURCES)
  await convert(puzzle("parent"), join(work, name), { to, verify: "off", ...ranks });

describe("the same cut in every format", () => {
  it.each([
    ["packed", "cut.isologit", {}],
    ["nemo2", "cut-nemo2", {}],
    ["nemo2", "cut-nemo2-padded", { tp: 2 }],
    ["bridge", "cut-bridge", {}],
    ["megatron", "cut-ranks", { tp: 2 }],
  ] as const)(
    "to %s, %s, and back to the tensors of the golden cut",
    { timeout: 120_000 },
    async (to, name, ranks) => {
      const dst = join(work, name);
      const report = await prune(puzzle("parent"), dst, { ...everything, to, ...ranks });
      expect(report.verification?.verdict).toBe("within");
      expect(report.verification?.firstDivergence).toBeNull();
      const back = join(work, `${name}-back`);
      await convert(dst, back, { to: "hf", verify: "off" });
      expect(digestsOf(join(back, "model.safetensors"))).toEqual(cases.everything!.tensors);
      const config = JSON.parse(readFileSync(join(back, "config.json"), "utf8"));
      expect(config).toMatchObject(cases.everything!.config);
      expect(filesOf(back).get("tokenizer.json")).toBe(filesOf(puzzle("parent")).get("tokenizer.json"));
    },
  );

  it.each(SOURCES)("from %s", { timeout: 120_000 }, async (_, name) => {
    const dst = join(work, `from-${name}`);
    const report = await prune(join(work, name), dst, { ...everything, to: "hf" });
    expect(report.verification?.verdict).toBe("within");
    expect(report.source.root).toBe(PARENT_ROOT);
    expect(digestsOf(join(dst, "model.safetensors"))).toEqual(cases.everything!.tensors);
    expect(JSON.parse(readFileSync(join(dst, "config.json"), "utf8"))).toMatchObject(
      cases.everything!.config,
    );
  });

  it("the same bytes with other numbers of threads and bytes of memory", { timeout: 120_000 }, async () => {
    const [one, other] = [join(work, "one"), join(work, "other")];
    await prune(puzzle("parent"), one, everything);
    await prune(puzzle("parent"), other, { ...everything, threads: 1, memoryBytes: 24 * 2 ** 20 });
    expect(filesOf(other)).toEqual(filesOf(one));
  });
});

it.each([
  ["tiny-t5", { drop: [0] }],
  ["moe", { drop: [1] }],
  ["latent-moe", { drop: [0] }],
  ["sharded", { drop: [2] }],
] as const)("no false alarm: %s with %o", { timeout: 120_000 }, async (name, { drop }) => {
  const report = await prune(golden(name), join(work, `other-${name}`), { drop, ids });
  expect(report.verification?.verdict).toBe("within");
});
