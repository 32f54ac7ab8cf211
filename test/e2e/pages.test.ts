/** Every line of a shell block in README.md and docs/ runs as written, and again. The longest pages are in test/long. */
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { blocksIn, CANNOT_RUN, LONG_PAGES, PAGES, runTwice } from "../support/pages.ts";

const work = workFolder();
const lines = PAGES.flatMap((page) => blocksIn(page).flat());

/** What a page must have printed. */
const SAYS: Readonly<Record<string, string>> = {
  "docs/tasks/nemo-to-vllm.md": "engines can serve it as it stands",
  "docs/tasks/publish-fp8.md": "within",
  "docs/tasks/fit-a-card.md": "chosen",
};

it("no reason to leave a line out is without a line", () => {
  const reasons = new Set(lines.map(({ cannot }) => cannot));
  expect(CANNOT_RUN.filter(([, why]) => !reasons.has(why))).toEqual([]);
});

/** Two runs of each line, beside the other pages. */
const TIMEOUT_MS = 300_000;

describe.concurrent("the lines of", { timeout: TIMEOUT_MS }, () => {
  it.each(PAGES.filter((page) => !LONG_PAGES.includes(page)))("%s", async (page) => {
    const printed = await runTwice(page, mkdtempSync(join(work, "page-")));
    expect(printed).toContain(SAYS[page] ?? "");
  });
});
