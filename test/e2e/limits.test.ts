/** Limits that clusters and file systems set: address space, long names. */
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { bytesAt } from "../support/fault-loop.ts";
import { workFolder } from "../support/goldens.ts";
import { shell } from "../support/program.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-M");

describe("a limit of virtual memory", () => {
  it("that is too low is refused with the number that is enough", async () => {
    const path = join(work, "few.isologit");
    const line = `ulimit -v 8388608; isologit convert ${model} ${path} --verify bytes`;
    const { status, stderr } = await shell(line);
    expect([status, stderr]).toEqual([4, expect.stringMatching(/^ADDRESS_SPACE {2}.* GiB/m)]);
    expect(stderr).toMatch(/^next: .*ulimit -v/m);
    expect(existsSync(path)).toBe(false);
  });

  it("that leaves room for few threads gives fewer threads, and the same bytes", async () => {
    const path = join(work, "fewer.isologit");
    const options = "--threads 64 --verbose";
    const { status, stdout, stderr } = await shell(
      `ulimit -v 16777216; isologit convert ${model} ${path} ${options}`,
    );
    expect([status, stderr + stdout]).toEqual([0, expect.stringContaining("threads")]);
    const whole = join(work, "whole.isologit");
    await convert(model, whole);
    expect(bytesAt(path)).toEqual(bytesAt(whole));
  });
});

it.each<[string, string, ConvertOptions]>([
  ["a file", `${"n".repeat(246)}.isologit`, {}],
  ["a folder", "é".repeat(127), { to: "hf" }],
])("%s with the longest name is written, staged under a shorter one", async (_, name, extra) => {
  const folder = join(work, `long-${name.length}`);
  mkdirSync(folder);
  await convert(model, join(folder, name), { verify: "bytes", threads: 1, ...extra });
  expect(readdirSync(folder)).toEqual([name]);
});

it("a name that no file system has is refused", async () => {
  await expect(convert(model, join(work, "n".repeat(256)), { to: "hf" })).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: expect.stringContaining("the name is longer"),
  });
});
