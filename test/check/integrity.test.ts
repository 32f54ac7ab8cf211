import { appendFileSync, cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { checkIntegrity } from "../../src/check/integrity.ts";
import { fileStore } from "../../src/io/file.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";

const work = workFolder();
const iteration = "iter_0000100";

function changed(name: string, change: (folder: string) => void): string {
  const folder = join(work, name);
  cpSync(golden("megatron-bridge-moe"), folder, { recursive: true });
  change(join(folder, iteration));
  return folder;
}

describe("integrity.json of a real checkpoint", () => {
  it("holds", async () => {
    expect(await checkIntegrity(await fileStore(golden("megatron-bridge-moe")))).toEqual([]);
  });

  it("shows a byte that changed", async () => {
    const folder = changed("byte", (to) => appendFileSync(join(to, "metadata.json"), " "));
    const { ok, findings } = await check(folder);
    expect(ok).toBe(false);
    expect(findings).toContainEqual({
      rule: "integrity-mismatch",
      severity: "error",
      at: { file: `${iteration}/metadata.json`, tensor: null, offset: null },
      message: `the file does not have the digest that ${iteration}/integrity.json lists`,
    });
  });

  it("misses a file, and says what it cannot use", async () => {
    const folder = changed("names", (to) => {
      const path = join(to, "integrity.json");
      const { algorithm, files } = JSON.parse(readFileSync(path, "utf8"));
      writeFileSync(path, JSON.stringify({ algorithm, files: { ...files, "../../__9_0.distcp": "00" } }));
    });
    const rules = async (of: string) =>
      (await checkIntegrity(await fileStore(of))).map(({ rule, at }) => [rule, at.file]);
    expect(await rules(folder)).toEqual([["integrity-missing", `${iteration}/../../__9_0.distcp`]]);
    const other = changed("other", (to) => writeFileSync(join(to, "integrity.json"), '{"algorithm":"md5"}'));
    expect(await rules(other)).toEqual([["integrity-unread", `${iteration}/integrity.json`]]);
    const broken = changed("broken", (to) => writeFileSync(join(to, "integrity.json"), "{"));
    expect(await rules(broken)).toEqual([["header-invalid", `${iteration}/integrity.json`]]);
  });

  it("of large files says that they were only counted", async () => {
    const text = '{"algorithm":"sha256","files":{"a.distcp":"00"}}';
    const files = new Map([
      ["integrity.json", Buffer.from(text)],
      ["a.distcp", new Uint8Array(2 ** 20 + 1)],
    ]);
    const findings = await checkIntegrity(memoryStore("memory", files));
    expect(findings.map(({ rule, severity }) => [rule, severity])).toEqual([["integrity-unread", "note"]]);
  });
});
