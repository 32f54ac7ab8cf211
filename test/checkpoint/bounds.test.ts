/** What recognising a near miss costs, where it works, and what it leaves alone. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { formats } from "../../formats/index.ts";
import { check } from "../../src/api/check.ts";
import { addressAbove, addressBelow, shellWord } from "../../src/checkpoint/near-misses/address.ts";
import { fileContent } from "../../src/checkpoint/near-misses/content.ts";
import { isNearMiss, recognise } from "../../src/checkpoint/near-misses/recognise.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { errorOf } from "../support/errors.ts";
import { changeConfig, copyGolden } from "../support/foreign.ts";
import { arraysOf, golden, workFolder } from "../support/goldens.ts";
import { countedStore, memoryStore } from "../support/memory-store.ts";
import { put } from "./near-misses.ts";

const work = workFolder();
const unknown = new IsologitError("FORMAT_UNKNOWN", "no known format is found here");
const bytes = (path: string) => new Uint8Array(readFileSync(join(golden("tiny"), path)));

/** What is said of files in memory that lie at `address`. */
async function toldOf(address: string, files: ReadonlyMap<string, Uint8Array>) {
  const { store, counts } = countedStore(memoryStore(address, files));
  const told = await recognise(unknown, { address, formats, store });
  const read = [...counts.values()].reduce((sum, count) => sum + count.bytes, 0);
  const open = [...counts.values()].reduce((sum, count) => sum + count.opened - count.closed, 0);
  return { told: told as IsologitError, read, open };
}

describe("on the Hub as on this machine", () => {
  it("a folder above the checkpoint", async () => {
    const files = new Map(["config.json", "model.safetensors"].map((file) => [`final/${file}`, bytes(file)]));
    const { told } = await toldOf("hf://owner/name@main", files);
    expect(told.next).toBe("give hf://owner/name@main/final");
  });

  it("no more than the first bytes of large files is read", async () => {
    const large = new Uint8Array(5_000_000).fill(0x41);
    const files = new Map(["a.safetensors", "b.safetensors"].map((file) => [file, large]));
    const { told, read, open } = await toldOf("hf://owner/name", files);
    expect([told.code, open]).toEqual(["NOT_FETCHED", 0]);
    expect(read).toBeLessThan(4096);
  });
});

describe("faults that are no near miss keep their own words", () => {
  it.each<[string, string, (folder: string) => Promise<string> | string]>([
    [
      "LIMIT_EXCEEDED",
      "a header that asks for too much",
      (folder) =>
        put(copyGolden("tiny", folder), "model.safetensors", Buffer.from("ffffffffffffff7f7b7d", "hex")),
    ],
    [
      "TRUNCATED",
      "a file cut short",
      (folder) =>
        put(copyGolden("tiny", folder), "model.safetensors", bytes("model.safetensors").subarray(0, 90_000)),
    ],
  ])("%s: %s", async (code, name, build) => {
    const error = await errorOf(async () => openCheckpoint(await build(join(work, name))));
    expect([error.code, isNearMiss(error)]).toEqual([code, false]);
  });

  it("a config of other weights", async () => {
    const folder = changeConfig(copyGolden("tiny", join(work, "config")), { vocab_size: 480 });
    const { findings } = await check(folder);
    expect(findings.find(({ rule }) => rule === "shape-mismatch")?.message).toMatch(
      /vocab_size 480 where the weights fit 512/,
    );
  });

  it("one rank that held all, in the header of HuggingFaceStorageWriter, under a config of other weights", async () => {
    const folder = copyGolden("tiny", join(work, "one-rank"));
    const all = [...(await arraysOf(join(folder, "model.safetensors")))].map(([name, array]) => ({
      name,
      ...array,
    }));
    const header = encodeHeader(all, {
      DCP_SHARDING_INFO: JSON.stringify({ [all[0]!.name]: { saved_offsets: [0, 0] } }),
    });
    put(folder, "model.safetensors", Buffer.concat([header, ...all.map((one) => one.bytes)]));
    const { findings } = await check(changeConfig(folder, { vocab_size: 480 }));
    expect(findings.map(({ rule }) => rule)).toContain("shape-mismatch");
  });
});

describe("what a file is by its first bytes", () => {
  it.each<[string, string | Uint8Array]>([
    ["empty", ""],
    ["lfs-pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"],
    ["web-page", "\n  <!DOCTYPE html><html>"],
    ["xml", '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'],
    ["json", '{"error":"gated"}'],
    ["text", "Entry not found"],
    ["zeros", new Uint8Array(512)],
    ["gguf", "GGUF\x03\0\0\0"],
    ["zip", "PK\x03\x04\x14"],
    ["safetensors", bytes("model.safetensors").subarray(0, 512)],
    ["other", Buffer.from("ffffffffffffff7f7b7d", "hex")],
  ])("%s", (content, start) => expect(fileContent(Buffer.from(start as string))).toBe(content));
});

describe("addresses near an address", () => {
  it.each([
    ["runs/a/weights", "runs/a"],
    ["/runs/a/weights/", "/runs/a"],
    ["hf://o/n@v1/a/weights", "hf://o/n@v1/a"],
    ["hf://o/n/weights", "hf://o/n"],
    ["hf://o/n@refs/pr/1/weights", "hf://o/n@refs/pr/1"],
    ["hf://o/n", undefined],
  ])("above %s", (address, above) => expect(addressAbove(address)).toBe(above));

  it("below", () => {
    expect(addressBelow("runs/a/", "weights")).toBe("runs/a/weights");
    expect(addressBelow("hf://o/n@v1/", "a/b")).toBe("hf://o/n@v1/a/b");
  });

  it("as one word of a shell", () => {
    expect(shellWord("runs/a.b-c")).toBe("runs/a.b-c");
    expect(shellWord("it's a run")).toBe("'it'\\''s a run'");
    expect(shellWord("-rf")).toBe("'-rf'");
  });
});
