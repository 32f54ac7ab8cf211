/** The suites that the package gives to authors find what is wrong with a plug-in: each damage of the example turns one red. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { installPackage, runIn } from "../support/package.ts";

const work = workFolder();
beforeAll(() => {
  installPackage(work);
});

/** Damages of the example, and the test that must find each. */
const DAMAGES: Readonly<Record<string, readonly [file: string, from: string, to: string, test: string]>> = {
  "a rule that stores rows twice": [
    "family.js",
    'concat(0, [role("mlp.gate"), role("mlp.up")])',
    'concat(0, [role("mlp.gate"), role("mlp.gate")])',
    "stored tensors and roles are two cuts of the same elements",
  ],
  "rows that go to another stream": [
    "family.js",
    'rows("gate", 0, d.ffn), rows("up", d.ffn, d.ffn)',
    'rows("up", 0, d.ffn), rows("gate", d.ffn, d.ffn)',
    "computes what torch computed",
  ],
  "a stream that no stage reads": [
    "family.js",
    'from: ["gate", "up"]',
    'from: ["gate", "gate"]',
    "all that is made is read",
  ],
  "a kernel that is run on too little": [
    "family.js",
    "{ count: tokens * ffn }",
    "{ count: tokens }",
    "each deliberate fault is found",
  ],
  "an offset that is off by one": ["format.js", "DATA, end);\n", "DATA, end + 1);\n", "one Mamba layer"],
  "a size that is not compared": ["format.js", "if (size === expected) return;", "return;", "one byte short"],
  "a wrong sign": ["kernel.js", "Math.exp(-gate[i])", "Math.exp(gate[i])", "is within its bound"],
};

it.each(Object.entries(DAMAGES))("%s turns a suite red", (name, [file, from, to, test]) => {
  const text = readFileSync(join(work, file), "utf8");
  expect(text).toContain(from);
  writeFileSync(join(work, file), text.replace(from, to));
  const { status, stdout } = runIn(work, "vitest/vitest.mjs", "run", "plugin.test.js", "-t", test);
  writeFileSync(join(work, file), text);
  expect(status, name).toBe(1);
  expect(stdout).toMatch(new RegExp(`× .*${test}`));
});
