/**
 * No false alarm: every Hugging Face golden to every format and number of ranks, and home, under default flags and --strict,
 * which every difference would turn red. At home it is what it was.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert, verify } from "../attacks/attack.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const WAYS = [
  ["packed"],
  ["nemo2"],
  ["nemo2", "--tp", "2"],
  ["bridge"],
  ["bridge", "--tp", "2"],
  ["megatron"],
  ["megatron", "--tp", "2"],
] as const;
const names = readdirSync(golden("")).filter((name) => existsSync(join(golden(name), "config.json")));

const GREEN = { exit: 0, verdict: "same" };

describe.each(names)("%s", (name) => {
  it.each(WAYS.map((way) => [way.join(" "), way] as const))("by %s", async (title, [to, ...flags]) => {
    const [away, home] = ["away", "home"].map((one) => join(work, `${name} ${title} ${one}`));
    expect(await convert(golden(name), away!, "--to", to, ...flags, "--strict")).toMatchObject(GREEN);
    expect(await convert(away!, home!, "--to", "hf", "--strict")).toMatchObject(GREEN);
    expect(await verify(golden(name), home!, "--strict")).toMatchObject(GREEN);
    expect(await verify(home!)).toMatchObject(GREEN);
    expect(filesOf(home!)).toEqual(filesOf(golden(name)));
  });
});
