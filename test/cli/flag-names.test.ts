/** The library names its options, and the command line the flags that set them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { longName } from "../../src/cli/flag.ts";
import { nameFlags } from "../../src/cli/flag-names.ts";
import { FLAGS } from "../../src/cli/options.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { run } from "../support/fake-library.ts";

it("names the flag of an option, and leaves other words in backquotes", () => {
  expect(nameFlags("`maxShardBytes` and `sign`, not `isologit plan` or `other`")).toBe(
    "--max-shard-size and --sign, not `isologit plan` or `other`",
  );
});

it("errors and findings name flags, in text and in JSON", async () => {
  const failing = () => {
    throw new IsologitError("USAGE", "`vocabSize` is 1", {}, { next: "use `dtype` bf16" });
  };
  const failed = await run("verify a b --json", { over: { verify: failing } });
  expect(failed.json().error).toMatchObject({ message: "--vocab-size is 1", next: "use --dtype bf16" });
  const at = { file: "x", tensor: null, offset: null };
  const finding = { rule: "r", severity: "error", at, message: "no config", next: "use `like`" } as const;
  const found = await run("check a", { over: { check: async () => ({ ok: false, findings: [finding] }) } });
  expect(found.stdout).toContain("next: use --like");
});

/** Texts of warnings and of verify's findings, which `--json` prints as the library made them. */
const REPORTED = /api\/convert|checkpoint\/surplus|controls\/findings|megatron\/config|model-card\/command/;

it("no other text of the library spells a flag", () => {
  const root = new URL("../../src/", import.meta.url).pathname;
  const flags = Object.values(FLAGS).map(longName).join("|");
  const spelt = new RegExp(`^(?!\\s*(\\*|//|/\\*)).*["\`( ](${flags})\\b(?!.*isologit )`, "m");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) =>
    /^(?!cli\/|report\/).*\.ts$/.test(file),
  );
  const spelling = files.filter((file) => {
    const lines = readFileSync(join(root, file), "utf8").split("\n");
    return lines.some((line) => spelt.test(line) && !line.includes("isologit download"));
  });
  expect(spelling.filter((file) => !REPORTED.test(file))).toEqual([]);
});
