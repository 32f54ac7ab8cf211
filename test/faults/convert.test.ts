/** Calls of the file system fail, one in each run: no partial destination, and a resume mends it. */
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { bytesAt, failEach, removeAll } from "../support/fault-loop.ts";
import { CHANGES, EVERY, intercepted } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");
const LEAN: ConvertOptions = { threads: 1, memoryBytes: 2 ** 20, checkpointBytes: 9_000, verify: "off" };

/** All of them fail in test/long/faults.test.ts. */
const STEP = 6;

/** A file appears by a link; a folder can only be renamed. */
const but = <T extends string>(calls: readonly T[], left: T): readonly T[] =>
  calls.filter((call) => call !== left);

describe("a fault of the file system leaves the destination as it was or as it shall be, and a resume mends it", () => {
  it.each([
    ["every call", "a packed file", "EIO", "x.isologit", but(EVERY, "rename"), {}],
    [
      "every change",
      "a folder in place of another",
      "ENOSPC",
      "folder",
      but(CHANGES, "link"),
      { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, overwrite: true },
    ],
    ["every write", "a distributed checkpoint", "EIO", "nemo2", ["write"], { to: "nemo2" }],
    ["every write", "a file a rank", "ENOSPC", "ranks", ["write"], { to: "megatron", tp: 2 }],
    ["every look", "a verified file", "EIO", "v.isologit", ["lstat", "write", "link"], { verify: "bytes" }],
  ] as const)("%s: %s, %s", async (_, __, code, name, calls, extra) => {
    const path = join(work, name);
    const options: ConvertOptions = { ...LEAN, ...extra };
    const written = {
      path,
      run: () => convert(model, path, options),
      mend: () => convert(model, path, { ...options, resume: existsSync(`${path}.partial`) }),
      ...(options.overwrite === true && { prepare: () => cpSync(model, path, { recursive: true }) }),
    };
    expect(await failEach(written, calls, code, STEP)).toBeGreaterThanOrEqual(calls.length);
  });
});

describe("calls that do less than was asked", () => {
  const path = join(work, "short.isologit");
  const run = () => convert(model, path, LEAN);

  it("reads and writes of a few bytes give the same file", async () => {
    await run();
    const right = bytesAt(path);
    removeAll(path);
    const halved = await intercepted((name, again, args) => {
      if (name !== "read" && name !== "write") return again(...args);
      const [bytes, at, count, position] = args as [Uint8Array, number, number, number];
      if (typeof bytes === "string") return again(...args);
      return again(bytes, at, Math.ceil(count / 2), position);
    }, run);
    expect(halved.status).toBe("fulfilled");
    expect(bytesAt(path)).toEqual(right);
    removeAll(path);
  });

  it("a read that finds no more bytes is no run of zeros", async () => {
    const ended = await intercepted((name, again, args) => {
      const ofTensor = name === "read" && Number(args[2]) > 9000;
      return ofTensor ? Promise.resolve({ bytesRead: 0 }) : again(...args);
    }, run);
    expect(ended).toMatchObject({ status: "rejected", reason: { code: "FILE_CHANGED", exit: 4 } });
    expect(existsSync(path)).toBe(false);
    removeAll(path);
  });
});

describe("a source that changes while it is read", () => {
  const source = join(work, "changing");
  const path = join(work, "changed.isologit");

  it.each<[string, (file: string) => void]>([
    ["grows", (file) => appendFileSync(file, "x")],
    ["shrinks", (file) => truncateSync(file, statSync(file).size - 2)],
    ["is written anew", (file) => utimesSync(file, 1, 1)],
  ])("%s", async (_, change) => {
    rmSync(source, { recursive: true, force: true });
    cpSync(model, source, { recursive: true });
    let changed = false;
    const watch: ConvertOptions["watch"] = ({ type }) => {
      if (type !== "tensor" || changed) return;
      changed = true;
      change(join(source, "model.safetensors"));
    };
    await expect(convert(source, path, { ...LEAN, watch })).rejects.toMatchObject({
      code: "FILE_CHANGED",
      exit: 4,
      at: { file: "model.safetensors" },
    });
    expect(readdirSync(work).filter((entry) => entry.startsWith("changed"))).toEqual([]);
  });
});
