/** Folders above a file: made one after the other, so that the error of the system reaches the user. */
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { systemError } from "../../src/core/errors.ts";
import { makeFolders } from "../../src/io/folders.ts";
import { withFault } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";

const work = workFolder();

it("makes what is missing, and tells what it made", async () => {
  const path = join(work, "a", "b", "c");
  expect(await makeFolders(path)).toEqual([join(work, "a"), join(work, "a", "b"), path]);
  expect(await makeFolders(path)).toEqual([]);
  expect(await makeFolders(join(path, "d"))).toEqual([join(path, "d")]);
});

it("accepts a link to a folder, and no file in the way", async () => {
  mkdirSync(join(work, "real"));
  symlinkSync(join(work, "real"), join(work, "link"));
  expect(await makeFolders(join(work, "link"))).toEqual([]);
  writeFileSync(join(work, "file"), "");
  await expect(makeFolders(join(work, "file"))).rejects.toMatchObject({ code: "EEXIST" });
  await expect(makeFolders(join(work, "file", "x"))).rejects.toMatchObject({ code: "ENOTDIR" });
});

it.each([
  ["ENOSPC", "DISK_FULL"],
  ["EDQUOT", "DISK_FULL"],
  ["EACCES", "IO_FAILED"],
])("%s is %s", async (system, code) => {
  const path = join(work, system, "below");
  const outcome = await withFault("mkdir", 3, system, () => makeFolders(path)); // the third makes `below`
  expect(outcome).toMatchObject({ status: "rejected", reason: { code: system } });
  expect(systemError(outcome.status === "rejected" && outcome.reason, {})).toMatchObject({ code });
  expect([existsSync(join(work, system)), existsSync(path)]).toEqual([true, false]);
});
