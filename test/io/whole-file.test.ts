/** A file appears complete or not at all. */
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { writeWhole } from "../../src/io/whole-file.ts";
import { withFault } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";

const work = workFolder();

it.each([
  ["writeFile", "ENOSPC", "DISK_FULL"],
  ["rename", "EIO", "IO_FAILED"],
])("after a failed %s the old content stays, and nothing else", async (call, code, told) => {
  const file = join(mkdtempSync(join(work, "files-")), "plan.json");
  await writeWhole(file, "old");
  const outcome = await withFault(call, 1, code, () => writeWhole(file, "new"));
  expect(outcome).toMatchObject({ status: "rejected", reason: { code: told, at: { file } } });
  expect(readdirSync(join(file, ".."))).toEqual(["plan.json"]);
  expect(readFileSync(file, "utf8")).toBe("old");
  await writeWhole(file, "new");
  expect(readFileSync(file, "utf8")).toBe("new");
});
