/**
 * The permission to write is lost in mid-run, or the disk becomes read-only: the destination is as it was or as it shall be,
 * the error names a file, `doctor` names what is left, and after the permission is back a resumed run gives the same bytes.
 */
import { cpSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { bytesAt, expectNamed, removeAll } from "../support/fault-loop.ts";
import { CHANGES, intercepted } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");
const LEAN: ConvertOptions = { threads: 1, memoryBytes: 2 ** 20, checkpointBytes: 9_000, verify: "off" };

/** A disk becomes read-only not after each change but after every so many: there are many writes. */
const EVERY_NTH = 5;

/** Calls on a file that was opened before: they need no permission. */
const OF_OPEN_FILES = ["write", "appendFile", "truncate", "datasync", "sync"];

function isRefused(name: string, [, flags = "r"]: readonly unknown[], code: string): boolean {
  if (!CHANGES.some((change) => change === name)) return false;
  if (name === "open") return flags !== "r";
  return code === "EROFS" || !OF_OPEN_FILES.includes(name);
}

/** Runs `work`, in which every change after the first `count` changes is refused. */
async function withPermission(count: number, code: string, work: () => Promise<unknown>) {
  let changes = 0;
  const outcome = await intercepted(async (name, again, args) => {
    if (!isRefused(name, args, code) || ++changes <= count) return again(...args);
    throw Object.assign(new Error(`${code}: planted in ${name}`), { code, syscall: name });
  }, work);
  return { outcome, changes };
}

it.each<[string, string, ConvertOptions]>([
  ["EACCES", "x.isologit", {}],
  ["EPERM", "hf", { to: "hf", verify: "bytes" }],
  ["EROFS", "nemo2", { to: "nemo2" }],
  ["EROFS", "replaced", { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, overwrite: true }],
])("%s: %s", async (code, name, extra) => {
  const path = join(work, name);
  const options = { ...LEAN, ...extra };
  const prepare = () => options.overwrite === true && cpSync(model, path, { recursive: true });
  prepare();
  const whole = await withPermission(Number.POSITIVE_INFINITY, code, () => convert(model, path, options));
  const right = bytesAt(path);
  expect(whole.changes).toBeGreaterThan(10);
  let refused = 0;
  for (let count = 0; count < whole.changes; count += code === "EROFS" ? EVERY_NTH : 1) {
    removeAll(path);
    prepare();
    const before = bytesAt(path);
    const told = `${code} after ${count} changes`;
    const { outcome } = await withPermission(count, code, () => convert(model, path, options));
    if (outcome.status === "rejected") {
      const { reason } = outcome;
      expect(reason, told).toBeInstanceOf(IsologitError);
      expect([reason.code, reason.exit], `${told}: ${reason.message}`).toEqual(["IO_FAILED", 4]);
      expect(reason.at.file, told).toBeTruthy();
      expect([before, right], told).toContainEqual(bytesAt(path));
      refused++;
    } else expect(bytesAt(path), told).toEqual(right); // only what is not needed any more could not be removed
    await expectNamed(path, told);
    rmSync(`${path}.partial.lock`, { force: true }); // its process has ended
    if (existsSync(`${path}.partial`) || outcome.status === "rejected")
      await convert(model, path, { ...options, resume: existsSync(`${path}.partial`) });
    expect(bytesAt(path), told).toEqual(right);
    expect(existsSync(`${path}.partial`), told).toBe(false);
  }
  expect(refused).toBeGreaterThan(5);
});
