/** What may lie in a folder that is written: each path once, as a file or as a folder. */
import { expect, it } from "vitest";
import { folderPlan } from "../../formats/folder-placement.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { codeOf } from "../support/errors.ts";

const planned = (...paths: readonly string[]) =>
  codeOf(() => {
    const plan = folderPlan();
    for (const path of paths) plan.file(path, 1);
    return plan.placement();
  });

it.each([
  ["the same twice", "tokenizer.json", "tokenizer.json"],
  ["a file, then a folder", "tokenizer.json", "tokenizer.json/vocab.txt"],
  ["a folder, then a file", "a/b/c", "a"],
  ["the certificate's place", CERTIFICATE_FILE],
  ["a folder in the certificate's place", `${CERTIFICATE_FILE}/notes.txt`],
])("refuses %s before anything is written", async (_, ...paths) => {
  expect(await planned(...paths)).toBe("PLAN_IMPOSSIBLE");
});

it("takes neighbours", async () => {
  expect(await planned("a/b", "a/c", "ab", "a.b", `context/${CERTIFICATE_FILE}`)).toBe("no error");
});
