/** Destinations that are there already and hold nothing: an empty folder, and a mount point, which cannot be renamed. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { refuseOverlap } from "../../src/convert/overlap.ts";
import { errorOf } from "../support/errors.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
/** the folder that counts as a mount point */
const mount = { path: "" };
vi.mock("../../src/io/mount.ts", async (original) => ({
  ...(await original<object>()),
  isMountPoint: (path: string) => path === mount.path,
}));

const OPTIONS = { to: "hf", verify: "bytes" } as const;
const expected = join(work, "expected");
await convert(golden("tiny"), expected, OPTIONS);

let count = 0;
let folder = "";
beforeEach(() => {
  folder = join(work, `destination-${count++}`);
  mkdirSync(folder);
});

const isWhole = () => {
  expect(filesOf(folder)).toEqual(filesOf(expected));
  expect(readdirSync(folder).filter((name) => name.includes("partial"))).toEqual([]);
  expect(existsSync(`${folder}.partial`)).toBe(false);
};

describe("an empty folder", () => {
  it("is a destination", async () => {
    await convert(golden("tiny"), folder, OPTIONS);
    isWhole();
  });

  it("is no finished run", async () => {
    await convert(golden("tiny"), folder, { ...OPTIONS, resume: true });
    isWhole();
  });

  it("that holds something is none", async () => {
    writeFileSync(join(folder, "mine"), "");
    expect(await errorOf(() => convert(golden("tiny"), folder, OPTIONS))).toMatchObject({
      code: "DESTINATION_EXISTS",
    });
    expect(readdirSync(folder)).toEqual(["mine"]);
  });

  it("is none for a packed file", async () => {
    const packed = { ...OPTIONS, to: "packed" };
    expect(await errorOf(() => convert(golden("tiny"), folder, packed))).toMatchObject({
      code: "DESTINATION_EXISTS",
    });
  });
});

describe("a mount point", () => {
  beforeEach(() => {
    mount.path = folder;
    return () => {
      mount.path = "";
    };
  });

  it("is filled, with nothing beside it", async () => {
    await convert(golden("tiny"), folder, OPTIONS);
    isWhole();
  });

  it("that holds something is refused, and replaced where that is asked for", async () => {
    writeFileSync(join(folder, "mine"), "");
    expect(await errorOf(() => convert(golden("tiny"), folder, OPTIONS))).toMatchObject({
      code: "DESTINATION_EXISTS",
    });
    expect(readdirSync(folder)).toEqual(["mine"]);
    await convert(golden("tiny"), folder, { ...OPTIONS, overwrite: true });
    isWhole();
  });

  it("keeps what is put there during the run, where it may be overwritten too", async () => {
    writeFileSync(join(folder, "mine"), "old");
    const change: ConvertOptions["watch"] = (event) => {
      if (event.type === "phase" && event.phase === "verify") writeFileSync(join(folder, "mine"), "new");
    };
    const options = { ...OPTIONS, overwrite: true, watch: change };
    expect(await errorOf(() => convert(golden("tiny"), folder, options))).toMatchObject({
      code: "DESTINATION_EXISTS",
    });
    expect(readFileSync(join(folder, "mine"), "utf8")).toBe("new");
    await convert(golden("tiny"), folder, { ...OPTIONS, overwrite: true });
    isWhole();
  });

  it("keeps what it held where the new files are not proven", async () => {
    writeFileSync(join(folder, "mine"), "");
    const options = { ...OPTIONS, overwrite: true, dtype: "fp8-e4m3", verify: "logits", top1: 1.1 } as const;
    await convert(golden("tiny"), folder, options).catch(() => {});
    expect(existsSync(join(folder, "mine"))).toBe(true);
  });

  /** A run that was stopped after `moved` of its files got their names, of which the first was set aside before. */
  function stopped(moved: number, cleared: boolean): void {
    const inside = join(folder, ".isologit.partial");
    mkdirSync(join(inside, "replaced"), { recursive: true });
    cpSync(expected, join(inside, "data"), { recursive: true });
    writeFileSync(join(inside, "verified"), "");
    if (cleared) writeFileSync(join(inside, "cleared"), "");
    for (const name of readdirSync(join(inside, "data")).slice(0, moved)) {
      renameSync(join(inside, "data", name), join(folder, name));
    }
  }

  it.each([0, 1, 3])("that was filled with %i files is filled to the end by a resume", async (moved) => {
    stopped(moved, true);
    await convert(golden("tiny"), folder, { ...OPTIONS, resume: true });
    isWhole();
  });

  it("that is whole stays so, whatever is left of the staged folder", async () => {
    stopped(Number.POSITIVE_INFINITY, false);
    await convert(golden("tiny"), folder, { ...OPTIONS, resume: true });
    isWhole();
  });

  it("from which not all was set aside loses the rest to the new files, by a resume", async () => {
    stopped(0, false);
    writeFileSync(join(folder, "config.json"), "old");
    await convert(golden("tiny"), folder, { ...OPTIONS, resume: true });
    isWhole();
  });
});

it.each(["hf://owner/name", golden("tiny")])(
  "the root of the file system is no destination of %s",
  async (from) => {
    for (const root of ["/", "//", `${work}${"/..".repeat(30)}`]) {
      expect(await errorOf(() => refuseOverlap(from, root))).toMatchObject({ code: "USAGE" });
    }
  },
);

it("mount points are known by the system's own list", async () => {
  const { isMountPoint } =
    await vi.importActual<typeof import("../../src/io/mount.ts")>("../../src/io/mount.ts");
  expect([isMountPoint(work), isMountPoint(join(work, "nowhere"))]).toEqual([false, false]);
  if (existsSync("/proc/self/mountinfo")) {
    expect(isMountPoint("/proc")).toBe(true);
    // --overwrite replaces the link: what it leads to is not the destination
    symlinkSync("/proc", join(work, "link"));
    expect(isMountPoint(join(work, "link"))).toBe(false);
  }
  rmSync(join(work, "expected"), { recursive: true, force: true });
});
