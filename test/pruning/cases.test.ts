import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { logits } from "../../src/api/logits.ts";
import { prune } from "../../src/api/pruning/prune.ts";
import { verify } from "../../src/api/verify.ts";
import { relL2 } from "../../src/core/distance.ts";
import {
  cases,
  digestsOf,
  heldout,
  logitsOfCases,
  optionsOf,
  PARENT_ROOT,
  puzzle,
  scoresFile,
} from "../support/cuts.ts";
import { arraysOf, filesOf, floatsOf, workFolder } from "../support/goldens.ts";

const work = workFolder();
const importance = scoresFile(join(work, "scores.safetensors"));
const recorded = await logitsOfCases();
const configAt = (folder: string) => readFileSync(join(folder, "config.json"), "utf8");

/** The lists of a certificate, in the words of the golden cases. */
const keptIn = (folder: string) => {
  const { cut } = JSON.parse(readFileSync(join(folder, "isologit.certificate.json"), "utf8"));
  const { layers, ffn, mambaHeads, heads, hidden, damage } = cut;
  const lists = Object.entries({ ffn, mamba_heads: mambaHeads, heads }).filter(
    ([, lists]) => Object.keys(lists).length > 0,
  );
  return { kept: { layers, ...Object.fromEntries(lists), ...(hidden !== null && { hidden }) }, damage };
};

describe("cuts that an independent program made, with its logits and damage", () => {
  it.each(Object.entries(cases))("%s", { timeout: 120_000 }, async (name, wanted) => {
    const dst = join(work, name);
    const options = { ...optionsOf(wanted), importance };
    const report = await prune(puzzle("parent"), dst, { ...options, prompts: heldout });
    expect(report.verification?.verdict).toBe("within");
    expect(report.verification?.findings).toEqual([]);
    expect(report.source.root).toBe(PARENT_ROOT);
    expect(report.architecture).toMatchObject({
      layers: wanted.keep.layers,
      parameters: wanted.parameters,
    });

    expect(digestsOf(join(dst, "model.safetensors"))).toEqual(wanted.tensors);
    const { kept, damage } = keptIn(dst);
    expect(kept).toEqual(wanted.keep);
    expect(damage).toEqual(report.damage);
    for (const [measure, value] of Object.entries(wanted.damage))
      expect(report.damage![measure as "klMean"], measure).toBeCloseTo(value, 6);

    const changed = { ...JSON.parse(configAt(puzzle("parent"))), ...wanted.config };
    expect(JSON.stringify(JSON.parse(configAt(dst)))).toBe(JSON.stringify(changed)); // the order of keys too
    const out = join(work, `${name}.logits`);
    await logits(dst, { out, ids: heldout[0]! });
    const found = floatsOf((await arraysOf(out)).get("logits")!);
    expect(relL2(floatsOf(recorded.get(`${name}.logits`) ?? recorded.get(name)!), found)).toBeLessThan(2e-5);

    expect((await verify(dst)).verdict).toBe("same"); // by its certificate alone
  });
});

it("has the config and the weights of the golden folder, and the side files of its source", async () => {
  const dst = join(work, "again");
  const options = { ...optionsOf(cases.minipuzzle!), importance };
  await prune(puzzle("parent"), dst, options);
  const [files, source, wanted] = [dst, puzzle("parent"), puzzle("parent-minipuzzle")].map(filesOf);
  expect(files!.get("config.json")).toBe(wanted!.get("config.json"));
  const own = ["config.json", "model.safetensors", "isologit.certificate.json"];
  const beside = (all: ReadonlyMap<string, string>) => [...all].filter(([path]) => !own.includes(path));
  expect(beside(files!)).toEqual(beside(source!));
  expect(digestsOf(join(dst, "model.safetensors"))).toEqual(
    digestsOf(puzzle("parent-minipuzzle/model.safetensors")),
  );
  expect((await verify(puzzle("parent"), dst)).verdict).toBe("different");
});
