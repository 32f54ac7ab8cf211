/** What stopped runs left on the disk, as `doctor` names it. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { doctor } from "../../src/api/doctor.ts";
import { stagingPath } from "../../src/io/destination.ts";
import { findLeftovers } from "../../src/io/leftovers.ts";
import { lockDestination } from "../../src/io/lock.ts";
import { lockComparing, lockTask } from "../../src/io/tasks/task-files.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();

it("the staged files of a stopped run, with its finished tensors", async () => {
  const path = join(work, "x.isologit");
  const stop = new AbortController();
  let tensors = 0;
  const watch = ({ type }: { type: string }) => {
    if (type === "tensor" && ++tensors === 9) stop.abort(); // a tensor that was begun may still be finished
  };
  const options = { threads: 1, checkpointBytes: 1000, verify: "off", signal: stop.signal, watch } as const;
  await expect(convert(golden("sharded"), path, options)).rejects.toMatchObject({ code: "INTERRUPTED" });
  const [only, ...more] = await findLeftovers(path);
  expect([only, more]).toEqual([
    {
      ...{ path: `${path}.partial`, kind: "staged", state: "abandoned" },
      ...{ bytes: expect.any(Number), tensors, tasks: null },
    },
    [],
  ]);
  expect(only!.bytes).toBeGreaterThan(1000);
  expect([9, 10]).toContain(tensors);
  const { leftovers, staging } = await doctor({ path: work });
  expect([leftovers, staging]).toEqual([[only], ["x.isologit.partial"]]);
});

it.each<[string, (path: string) => ReturnType<typeof lockTask>]>([
  ["writes", (path) => lockTask(path, { index: 1, count: 2 })],
  ["compares", (path) => lockComparing(stagingPath(path), { index: 1, count: 2 })],
])("the staged files of a task that %s are in use", async (_, lock) => {
  const path = join(work, "divided");
  await using task = await lock(path);
  expect(await findLeftovers(path)).toMatchObject([{ kind: "staged", state: "in use" }]);
  await task[Symbol.asyncDispose]();
  expect(await findLeftovers(path)).toEqual([]);
});

describe("locks", () => {
  it("of a process that runs, of one that has ended, and of none", async () => {
    const folder = join(work, "locks");
    mkdirSync(folder);
    await using _ = await lockDestination(join(folder, "running"));
    const ended = { pid: 1, host: "h", machine: null, boot: null, pids: null, started: null };
    const lock = { ...ended, since: "then", token: "t" };
    symlinkSync(JSON.stringify(lock), join(folder, "elsewhere.partial.lock"));
    writeFileSync(join(folder, "logits.safetensors.partial"), "four");
    symlinkSync("nothing", join(folder, "foreign.partial.lock"));
    const found = await findLeftovers(folder);
    expect(
      found.map(({ path, kind, state, bytes }) => [path.slice(folder.length + 1), kind, state, bytes]),
    ).toEqual([
      ["elsewhere.partial.lock", "lock", "unknown", 0],
      ["foreign.partial.lock", "lock", "unknown", 0],
      ["logits.safetensors.partial", "file", "abandoned", 4],
      ["running.partial.lock", "lock", "in use", 0],
    ]);
  });
});

it("a path that exists neither itself nor in a folder is an error", async () => {
  await expect(findLeftovers(join(work, "none", "x"))).rejects.toMatchObject({ code: "NOT_FOUND" });
});

describe("the staging folder of a long name", () => {
  const long = (end: string) => join(work, `${"ä".repeat(125)}${end}`);

  it("has room for its lock, and is another for each name", () => {
    const [one, other] = [stagingPath(long("1")), stagingPath(long("2"))];
    expect(one).not.toBe(other);
    for (const path of [one, other]) {
      const name = path.slice(work.length + 1);
      expect(Buffer.byteLength(`${name}.lock.0123456789abcdef`)).toBeLessThanOrEqual(255);
      expect(name).toMatch(/^ä+~[0-9a-f]{16}\.partial$/);
    }
  });

  it("of a usual name is the name with .partial", () => {
    expect(stagingPath(join(work, "x"))).toBe(join(work, "x.partial"));
  });
});
