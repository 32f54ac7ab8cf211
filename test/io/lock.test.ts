/** One process at a time writes a destination; a lock whose process has ended is taken over by one process. */
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { IsologitError } from "../../src/core/errors.ts";
import { lockAt, lockDestination, lockPath, lockState } from "../../src/io/lock.ts";
import { BEAT_SECONDS, BeatWatch, isSilent, keepBeating } from "../../src/io/processes/heartbeat.ts";
import { hasEnded, markOfThisProcess, type ProcessMark } from "../../src/io/processes/process-mark.ts";
import { ComparingTasks } from "../../src/io/tasks/task-files.ts";
import { intercepted, withFault } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";

const work = workFolder();
const destination = join(work, "model");
const path = lockPath(destination);
const own = await markOfThisProcess();
const since = "2026-01-02T03:04:05.000Z";

const released = async (lock: AsyncDisposable) => lock[Symbol.asyncDispose]();
const left = () => readdirSync(work);
const holds = (mark: Partial<ProcessMark>, token = "1".repeat(16), at = path) =>
  symlinkSync(JSON.stringify({ ...own, ...mark, since, token }), at);
/** A process that has ended. */
const ended = spawnSync(process.execPath, ["-e", ""]).pid;

it("refuses the second, and names the first", async () => {
  const lock = await lockDestination(destination);
  const refused = await lockDestination(destination).catch((error) => error);
  expect(refused).toBeInstanceOf(IsologitError);
  expect([refused.code, refused.exit, refused.at.file]).toEqual(["DESTINATION_BUSY", 4, path]);
  expect(refused.message).toContain(`process ${process.pid} on ${own.host}`);
  expect(refused.message).toContain(JSON.parse(readlinkSync(path)).since);
  expect(refused.next).toContain(path);
  await released(lock);
  expect(left()).toEqual([]);
  await released(await lockDestination(destination));
});

describe("a lock that was left", () => {
  it.each<[string, Partial<ProcessMark>, boolean]>([
    ["by a process that has ended", { pid: ended }, true],
    ["by a process whose number is used again", { started: "1" }, true],
    ["before the machine was started again", { boot: "another", pid: process.pid }, true],
    ["by a process that runs", {}, false],
    ["on another host", { host: "elsewhere", pid: ended }, false],
    ["on another host of that name", { machine: "another", boot: "another", pid: ended }, false],
    ["in another container", { pids: "pid:[1]", pid: ended }, false],
  ])("%s", async (_, mark, taken) => {
    holds(mark);
    const lock = await lockDestination(destination).catch((error) => error);
    if (taken) {
      expect(JSON.parse(readlinkSync(path)).since).not.toBe(since);
      await released(lock);
      expect(left()).toEqual([]);
    } else {
      expect(lock).toMatchObject({ code: "DESTINATION_BUSY", message: expect.stringContaining(since) });
      unlinkSync(path);
    }
  });

  it("is taken over by one of many", async () => {
    for (let round = 0; round < 20; round++) {
      holds({ pid: ended });
      // each crashed taker leaves a lock named after the one that it was about to replace
      if (round % 2 === 1) holds({ pid: ended }, "2".repeat(16), `${path}.${"1".repeat(16)}`);
      const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockDestination(destination)));
      const won = tries.filter((each) => each.status === "fulfilled");
      expect(won.length).toBe(1);
      for (const each of tries) {
        if (each.status === "rejected") expect(each.reason).toMatchObject({ code: "DESTINATION_BUSY" });
      }
      await released(won[0]!.value);
      expect(left()).toEqual([]);
    }
  });

  it.each<[string, () => unknown]>([
    ["an empty file", () => writeFileSync(path, "")],
    ["a pipe, which nobody will write to", () => execFileSync("mkfifo", [path])],
    ["a file too large to be read", () => [writeFileSync(path, ""), truncateSync(path, 2 ** 33)]],
    ["a link to another file", () => symlinkSync("/etc/hostname", path)],
  ])("and tells nobody's name is refused: %s", async (_, make) => {
    make();
    await expect(lockDestination(destination)).rejects.toMatchObject({
      code: "DESTINATION_BUSY",
      next: expect.stringContaining(`delete ${path}`),
    });
    unlinkSync(path);
  });
});

describe("a call of the file system fails", () => {
  it.each(["unlink", "readlink", "lstat"])(
    "%s: a lock that stays is no obstacle for this process",
    async (call) => {
      const lock = await lockDestination(destination);
      await withFault(call, 1, "EIO", () => released(lock));
      expect(left()).toEqual(["model.partial.lock"]);
      expect(await lockState(path)).toBe("abandoned");
      await released(await lockDestination(destination));
      expect(left()).toEqual([]);
    },
  );

  it("rename: the lock that should replace an abandoned one is no obstacle either", async () => {
    holds({ pid: ended });
    const outcome = await withFault("rename", 1, "EIO", () => lockDestination(destination));
    expect(outcome).toMatchObject({ reason: { code: "IO_FAILED", at: { file: path } } });
    expect(left().length).toBe(2);
    await released(await lockDestination(destination));
    expect(left()).toEqual([]);
  });

  it("lstat: whether a lock is held is an error that names it", async () => {
    await using lock = await lockDestination(destination);
    const outcome = await withFault("lstat", 1, "EIO", lock.isHeld);
    expect(outcome).toMatchObject({ reason: { code: "IO_FAILED", at: { file: path } } });
  });

  it("readFile: a process of which the system tells nothing may run", async () => {
    for (let n = 1; n <= 4; n++)
      expect(await withFault("readFile", n, "EMFILE", () => hasEnded(own))).toMatchObject({ value: false });
  });
});

it("is a file where there are no symbolic links", async () => {
  const outcome = await intercepted(
    (name, again, args) =>
      name === "symlink" ? Promise.reject(Object.assign(new Error("no"), { code: "EPERM" })) : again(...args),
    async () => {
      const lock = await lockDestination(destination);
      expect(lstatSync(path).isFile()).toBe(true);
      await expect(lockDestination(destination)).rejects.toMatchObject({
        code: "DESTINATION_BUSY",
        message: expect.stringContaining(`process ${process.pid}`),
      });
      await released(lock);
    },
  );
  expect(outcome.status).toBe("fulfilled");
  expect(left()).toEqual([]);
});

it("makes the folders above, and takes them away again where they stay empty", async () => {
  const deep = join(work, "a", "b", "model");
  const lock = await lockDestination(deep);
  expect(existsSync(join(work, "a", "b"))).toBe(true);
  await released(lock);
  expect(left()).toEqual([]);
  const kept = await lockDestination(deep);
  writeFileSync(deep, "");
  await released(kept);
  expect(existsSync(deep)).toBe(true);
});

describe("a lock with a heartbeat", () => {
  it("is believed for as long as it beats, by a process that cannot see its holder", async () => {
    const lock = await lockAt(path, { beats: true });
    expect(JSON.parse(readlinkSync(path)).beatSeconds).toBe(BEAT_SECONDS);
    expect(await isSilent(path, 1)).toBe(true);
    const beating = keepBeating(path, lock.isHeld, () => {}, 5);
    expect(await isSilent(path, 20)).toBe(false);
    beating.stop();
    await released(lock);
    expect(await isSilent(path, 1)).toBe(true); // it is gone
  });

  it("is seen to beat, and to be left, without waiting", async () => {
    const watch = new BeatWatch(100);
    expect(await watch.isBeating(path)).toBe(false);
    const lock = await lockAt(path, { beats: true });
    expect(await watch.isBeating(path)).toBe(true);
    await sleep(150);
    expect(await watch.isBeating(path)).toBe(false);
    const beating = keepBeating(path, lock.isHeld, () => {}, 5);
    await sleep(150);
    expect(await watch.isBeating(path)).toBe(true);
    beating.stop();
    await released(lock);
    expect(await watch.isBeating(path)).toBe(false);
  });

  it("of a task on another host counts as running", async () => {
    const folder = join(work, "tasks");
    mkdirSync(folder);
    const task = { index: 0, count: 2 };
    const tasks = new ComparingTasks(folder);
    expect(await tasks.has(task)).toBe(false);
    const at = join(folder, "compare.0-of-2.lock");
    holds({ host: "elsewhere" }, "1".repeat(16), at);
    expect(await tasks.has(task)).toBe(true);
    unlinkSync(at);
    holds({ pid: 2 ** 22 + 1 }, "1".repeat(16), at); // a process that has ended
    expect(await tasks.has(task)).toBe(false);
    rmSync(folder, { recursive: true });
  });

  it("notices that another process took it over", async () => {
    const lock = await lockAt(path, { beats: true });
    const lost = new Promise<void>((resolve) => {
      keepBeating(path, lock.isHeld, resolve, 5);
    });
    unlinkSync(path);
    holds({ host: "elsewhere" });
    await lost;
    await released(lock); // the lock of the other process stays
    expect(lstatSync(path).isSymbolicLink()).toBe(true);
    unlinkSync(path);
  });

  it("is refused at once where its holder can be seen", async () => {
    const lock = await lockAt(path, { beats: true });
    const before = performance.now();
    await expect(lockAt(path)).rejects.toMatchObject({ code: "DESTINATION_BUSY" });
    expect(performance.now() - before).toBeLessThan(1000);
    await released(lock);
  });
});
