/** What forward passes see with few tokens: the table of docs/verification.md, recomputed. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales, type ModelWithScales } from "../../src/checkpoint/load.ts";
import { seededIds } from "../../src/inference/prompts.ts";
import { logitsRung } from "../../src/verify/logits.ts";
import { FAMILIES, familyGolden, golden } from "../support/goldens.ts";
import { EXPERT_FAULTS, FAULTS, LATENT_FAULTS } from "../support/verify/code-faults.ts";
import { copyOf, opened } from "../support/verify/planted.ts";
import { runBy } from "../support/verify/wiring.ts";

const QUICK: VerifyOptions = { threads: 1, memoryBytes: 64 * 1024 * 1024 };
const TOKENS = [1, 2, 4, 8, 16, 32, 64];
/** The number of tokens that runs by default where nothing is recast. */
const DEFAULT = 16;

const load = async (folder: string) => loadModelWithScales(await opened(await copyOf(folder)), {});
const prompt = (tokens: number, { dims }: ModelWithScales) => ({
  ids: seededIds(tokens, 0, dims.vocab),
  textTokens: 0,
});

it("is as the document says, and complete with the default number of tokens", async () => {
  const planted = [
    ["sharded", FAULTS],
    ["moe", EXPERT_FAULTS],
    ["latent-moe", LATENT_FAULTS],
  ] as const;
  const goldens = ["tiny", "tiny-t5", "trained", ...planted.map(([name]) => name)].map(golden);
  const models = await Promise.all([...goldens, ...FAMILIES.map(familyGolden)].map(load));
  const rows: string[] = [];
  for (const tokens of TOKENS) {
    const count = { caught: 0, controls: 0, seen: 0, faults: 0 };
    for (const model of models) {
      const rung = await logitsRung(model, model, QUICK, prompt(tokens, model));
      const live = rung.metrics.controls.filter(({ caught }) => caught !== null);
      count.controls += live.length;
      count.caught += live.filter(({ caught }) => caught).length;
    }
    for (const [name, faults] of planted) {
      const model = await load(golden(name));
      for (const [break_, layer, door] of Object.values(faults)) {
        const { bad } = await logitsRung(model, runBy(model, break_), QUICK, prompt(tokens, model));
        count.faults++;
        if (bad[0]?.layer === layer && bad[0].door === door) count.seen++;
      }
    }
    rows.push(`| ${tokens} | ${count.caught} of ${count.controls} | ${count.seen} of ${count.faults} |`);
    if (tokens >= DEFAULT) expect(count).toMatchObject({ caught: count.controls, seen: count.faults });
  }
  console.log(rows.join("\n"));
  expect(readFileSync("docs/verification.md", "utf8")).toContain(rows.join("\n"));
});
