/** What can be refused before a conversion is refused before it: nothing is staged. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { errorOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();

/** The refusal of a conversion, and what it left. */
async function refusal(source: string, options: ConvertOptions) {
  const error = await errorOf(() => convert(source, join(work, "out"), options));
  expect(readdirSync(work)).toEqual([]);
  return error;
}

describe("a backend that is not there", () => {
  it.each<[string, ConvertOptions]>([
    ["NOT_AVAILABLE", { backend: "webgpu", device: "no such device" }],
    ["NOT_AVAILABLE", { device: "no such device" }],
    ["USAGE", { backend: "wasm", device: "no such device" }],
  ])("%s: %j", async (code, options) => {
    expect(await refusal(golden("tiny"), { to: "packed", ...options })).toMatchObject({ code, exit: 2 });
  });

  it("is not asked for where no forward pass is", async () => {
    const report = await convert(golden("tiny"), join(work, "out"), {
      to: "packed",
      verify: "bytes",
      device: "none",
    });
    expect(report.verification?.verdict).toBe("same");
  });
});

describe("--like", () => {
  const weights = join(golden("nemo2-tiny"), "weights");

  it.each([
    ["of another architecture", golden("moe"), /; the config is from `like` \S+moe$/],
    ["that is not there", join(work, "nowhere"), /^`like`: no such file or folder/],
    [
      "that is no checkpoint",
      join(golden("nemo2-tiny"), "context"),
      /^`like`: this is a part of a checkpoint/,
    ],
  ])("%s is named", async (_, like, says) => {
    const error = await errorOf(() => convert(weights, join(work, "like"), { to: "hf", like }));
    expect(error.message).toMatch(says);
  });

  it("of another model than a source with a config of its own is named, before work", async () => {
    const out = join(work, "like-other");
    for (const source of ["nemo1-tiny.nemo", "nemo2-tiny"]) {
      const error = await errorOf(() => convert(golden(source), out, { to: "hf", like: golden("moe") }));
      expect(error).toMatchObject({ code: "CONFIG_INVALID", next: expect.stringContaining("`like`") });
      expect(error.message).toMatch(/^`like` \S+moe: /);
      expect([existsSync(out), existsSync(`${out}.partial`)]).toEqual([false, false]);
    }
  });

  it("that fits is enough for weights without a config", async () => {
    const options = { to: "hf", like: join(golden("nemo2-tiny"), "hf"), verify: "bytes" } as const;
    const report = await convert(weights, join(work, "fits"), options);
    expect(report.verification?.verdict).toBe("same");
  });
});
