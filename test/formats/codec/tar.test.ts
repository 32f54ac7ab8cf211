/** Tars as stores: what other tars hold is read, whatever could lead astray is refused. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { tarStore } from "../../../formats/codec/tar/read.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { type ByteSource, readRange, type Store } from "../../../src/core/io.ts";
import { workFolder } from "../../support/goldens.ts";
import { countedStore, memoryStore } from "../../support/memory-store.ts";

const hostile = new URL("../../../fixtures/hostile/pickles/", import.meta.url);
const work = workFolder();

const storeOf = (bytes: Uint8Array) => memoryStore("m", new Map([["x.nemo", bytes]]));
const open = (bytes: Uint8Array) => tarStore(storeOf(bytes), "x.nemo");

async function contents(store: Store): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const { path, size } of await store.list()) {
    await using source = await store.open(path);
    found[path] = Buffer.from(await readRange(source, 0, size)).toString();
  }
  return found;
}

/** A header by hand; `size` as the 12 bytes of its field, or a number. */
function header(name: string, size: number | Buffer, type = "0"): Buffer {
  const block = Buffer.alloc(512);
  block.write(name, 0);
  block.write("0000644\0", 100);
  if (typeof size === "number") block.write(`${size.toString(8).padStart(11, "0")}\0`, 124);
  else size.copy(block, 124);
  block.write("        ", 148);
  block.write(type, 156);
  block.write("ustar\x0000", 257, "latin1");
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, "0")}\0 `,
    148,
  );
  return block;
}

const filled = (text: string) => Buffer.concat([Buffer.from(text)], Math.ceil(text.length / 512) * 512);
const END = Buffer.alloc(1024);

describe("archives of other software", () => {
  const files: Record<string, string> = {
    "model_config.yaml": "target: x\n",
    "model_weights/a.b.c/.zarray": "{}",
    [`${"deep/".repeat(30)}name`]: "far down",
    [`${"n".repeat(150)}.txt`]: "a long name",
    "empty.txt": "",
  };
  const folder = join(work, "packed");
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  it.each(["gnu", "pax", "posix", "ustar"])("of format %s", async (format) => {
    const names = format === "ustar" ? Object.keys(files).filter((name) => !name.startsWith("nnn")) : ["."];
    const bytes = execFileSync("tar", ["-C", folder, `--format=${format}`, "-cf", "-", ...names]);
    const wanted = Object.entries(files).filter(([name]) => format !== "ustar" || names.includes(name));
    expect(await contents(await open(bytes))).toEqual(Object.fromEntries(wanted));
  });
});

it("a member of 9 GiB is found behind base-256 sizes, by headers alone", async () => {
  const size = 9 * 2 ** 30;
  const field = Buffer.alloc(12);
  field.writeBigUInt64BE(BigInt(size), 4);
  field[0] = 0x80;
  const [first, second] = [header("big", field), header("small", 3)];
  const tail = Buffer.concat([second, filled("abc"), END]);
  const source: ByteSource = {
    url: "m",
    size: 512 + size + tail.byteLength,
    async readInto(target, offset) {
      for (let i = 0; i < target.byteLength; i++) {
        const at = offset + i;
        target[i] = at < 512 ? first[at]! : at < 512 + size ? 0xee : tail[at - 512 - size]!;
      }
    },
    async [Symbol.asyncDispose]() {},
  };
  const { store, counts } = countedStore({ url: "m", list: async () => [], open: async () => source });
  const tar = await tarStore(store, "x");
  expect(await tar.list()).toEqual([
    { path: "big", size },
    { path: "small", size: 3 },
  ]);
  expect(counts.get("x")!.bytes).toBeLessThan(200_000);
  await using small = await tar.open("small");
  expect(Buffer.from(await readRange(small, 0, 3)).toString()).toBe("abc");
  await expect(readRange(small, 1, 3)).rejects.toMatchObject({ code: "TRUNCATED", at: { file: "small" } });
});

it("each opened member closes its archive", async () => {
  const { store, counts } = countedStore(storeOf(Buffer.concat([header("a", 1), filled("x"), END])));
  const tar = await tarStore(store, "x.nemo");
  await (await tar.open("a"))[Symbol.asyncDispose]();
  await expect(tar.open("b")).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(counts.get("x.nemo")).toMatchObject({ opened: 2, closed: 2 });
});

describe("refuses", () => {
  it.each([
    ["tar-dotdot.nemo", "PATH_UNSAFE"],
    ["tar-dotdot-inner.nemo", "PATH_UNSAFE"],
    ["tar-absolute.nemo", "PATH_UNSAFE"],
    ["tar-backslash.nemo", "PATH_UNSAFE"],
    ["tar-symlink.nemo", "PATH_UNSAFE"],
    ["tar-symlink-read.nemo", "PATH_UNSAFE"],
    ["tar-hardlink.nemo", "PATH_UNSAFE"],
    ["tar-device.nemo", "PATH_UNSAFE"],
    ["tar-fifo.nemo", "PATH_UNSAFE"],
    ["tar-pax-dotdot.nemo", "PATH_UNSAFE"],
    ["tar-duplicate.nemo", "DUPLICATE_NAME"],
    ["tar-huge-member.nemo", "TRUNCATED"],
    ["tar-bad-checksum.nemo", "ARCHIVE_INVALID"],
    ["tar-truncated.nemo", "TRUNCATED"],
  ])("%s", async (name, code) => {
    const error = await open(readFileSync(new URL(name, hostile))).catch((e: unknown) => e as IsologitError);
    expect(error).toBeInstanceOf(IsologitError);
    expect(error).toMatchObject({ code, at: { file: "x.nemo" } });
  });

  const member = Buffer.concat([header("a", 1), filled("x")]);
  const pax = (records: string) =>
    Buffer.concat([header("p", records.length, "x"), filled(records), member, END]);
  it.each([
    ["an archive cut between two members", member, "TRUNCATED"],
    ["an archive that goes on behind its end", Buffer.concat([member, END, member]), "TRAILING_BYTES"],
    [
      "a folder with bytes of its own",
      Buffer.concat([header("d/", 1, "5"), filled("x"), END]),
      "ARCHIVE_INVALID",
    ],
    ["a type of file that is none", Buffer.concat([header("a", 0, "Z"), END]), "UNSUPPORTED"],
    ["a member without a name", Buffer.concat([header("", 0), END]), "PATH_UNSAFE"],
    [
      "a size that is not octal",
      Buffer.concat([header("a", Buffer.from("0000000009x\0")), END]),
      "ARCHIVE_INVALID",
    ],
    ["a size beyond 2^53", Buffer.concat([header("a", Buffer.alloc(12, 0xff)), END]), "SIZE_UNSAFE"],
    ["a pax record cut short", pax("99 path=b\n"), "ARCHIVE_INVALID"],
    ["a pax size that is no number", pax("13 size=1e99\n"), "SIZE_UNSAFE"],
    ["a sparse file", pax("22 GNU.sparse.major=1\n"), "UNSUPPORTED"],
    ["a pax size that hides what follows", pax("14 size=99999\n"), "TRUNCATED"],
    [
      "a name of a megabyte",
      Buffer.concat([header("p", 2 ** 21, "x"), Buffer.alloc(2 ** 21), END]),
      "LIMIT_EXCEEDED",
    ],
  ])("%s", async (_, bytes, code) => {
    await expect(open(bytes)).rejects.toMatchObject({ code });
  });

  it("an archive cut anywhere", async () => {
    const path = join(work, "whole.tar");
    const whole = Buffer.concat([member, header("b", 700), filled("y".repeat(700)), END]);
    for (let size = 0; size < whole.byteLength - 512; size += 100) {
      writeFileSync(path, whole);
      truncateSync(path, size);
      await expect(open(readFileSync(path)), `cut at ${size}`).rejects.toMatchObject({ code: "TRUNCATED" });
    }
  });
});
