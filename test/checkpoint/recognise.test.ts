/** What people bring in place of a checkpoint is told by its name, with a next step, by `check` and by `convert`. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { plan } from "../../src/api/plan.ts";
import type { IsologitError } from "../../src/core/errors.ts";
import { errorOf } from "../support/errors.ts";
import { workFolder } from "../support/goldens.ts";
import { NEAR_MISSES } from "./near-misses.ts";

const work = workFolder();
let count = 0;
function fresh(): string {
  const folder = join(work, String(count++));
  mkdirSync(folder);
  return folder;
}

/** What a conversion would be refused with. */
const refusalOf = (address: string): Promise<IsologitError> =>
  errorOf(() => plan(address, join(work, "out"), { to: "packed" }));

describe.each(NEAR_MISSES)("$name", ({ build, code, says, next }) => {
  it("is told once", async () => {
    const address = await build(fresh());
    const error = await refusalOf(address);
    expect(error.message).toMatch(says);
    expect([error.code, error.exit]).toEqual([code, 3]);
    expect(error.next).toMatch(next);
    expect(error.at.file ?? error.at.tensor, "a place is named").toBeDefined();

    const { ok, findings } = await check(address);
    const errors = findings.filter(({ severity }) => severity === "error");
    expect(ok).toBe(false);
    expect(errors.map(({ rule, message }) => ({ rule, message }))).toEqual([
      { rule: code.toLowerCase().replaceAll("_", "-"), message: error.message },
    ]);
    expect(errors[0]!.next).toBe(error.next);
  });
});
