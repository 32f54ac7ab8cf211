/** Documents show what the program prints, apart from what the machine or the version decides. */
import { readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { shell } from "../support/program.ts";

const root = new URL("../..", import.meta.url).pathname;
const work = workFolder();
symlinkSync(join(root, "fixtures"), join(work, "fixtures"));

/** Without device, time, memory and version, and with one space for any white space. */
const masked = (text: string) =>
  text
    .replace(/^run on .*\n(?: .*\n)*/m, "")
    .replace(/^(time) .*\n(?: .*\n)*/gm, "$1\n")
    .replace(/\s+/g, " ")
    .trim();

it.each(["README.md", "docs/generate.md"])("%s", async (file) => {
  const document = readFileSync(join(root, file), "utf8");
  const [, line, shown] = /```console\n\$ npx (.*)\n([^`]*)```/.exec(document)!;
  const { stdout } = await shell(line!, { cwd: work });
  expect(masked(stdout)).toBe(masked(shown!));
});
