/** Every trap through the command line: a known exit, a clean error, nothing run, nothing written. */
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import * as library from "../../src/index.ts";
import { run } from "../cli/fakes.ts";
import { workFolder } from "../goldens.ts";

const hostile = new URL("../../fixtures/hostile/pickles/", import.meta.url).pathname;
const { cases } = JSON.parse(readFileSync(join(hostile, "manifest.json"), "utf8")) as {
  cases: { file: string; expect: string; why: string }[];
};
const work = workFolder();
const MARKER = "ISOLOGIT_PWNED";
/** Sound as a file, and no model of a known family. */
const NO_MODEL = "ok";

describe("every trap", () => {
  it.each(cases)("$file: $expect, $why", async ({ file, expect: wanted }) => {
    const out = join(work, file.replaceAll(".", "-"));
    mkdirSync(out);
    for (const line of [
      ["inspect", join(hostile, file)],
      ["convert", join(hostile, file), join(out, "model"), "--to", "hf", "--verify", "off"],
      ["scan", join(hostile, file)],
    ]) {
      const { status, stderr } = await run(line, { over: library });
      const isScan = line[0] === "scan";
      expect(status, stderr).toBeLessThan(isScan ? 2 : 5);
      expect(stderr).not.toMatch(/^\s+at /m);
      if (line[0] === "convert" || (wanted === "refuse" && !isScan)) expect(status).not.toBe(0);
      if (status !== 0 && !isScan) expect(stderr).toContain(file);
      if (wanted === NO_MODEL && isScan) expect(status).toBe(0);
    }
    expect(readdirSync(out)).toEqual([]);
    for (const folder of [process.cwd(), hostile, work, out, "/tmp"]) {
      expect(existsSync(join(folder, MARKER)), folder).toBe(false);
    }
  });
});
