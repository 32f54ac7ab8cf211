/** The lines of the longest pages, as in test/e2e/pages.test.ts. */
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { LONG_PAGES, runTwice } from "../support/pages.ts";

const work = workFolder();

/** All of these pages run at the same time, so that a line waits long for a processor. */
const LINE_MS = 120_000;

describe.concurrent("the lines of", () => {
  it.each(LONG_PAGES)("%s", async (page) => {
    await runTwice(page, mkdtempSync(join(work, "page-")), LINE_MS);
  });
});
