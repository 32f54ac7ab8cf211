/** Tasks that compare what tasks wrote: the merge reports what one process finds, and accepts nothing about other files. */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Event } from "../../src/core/events.ts";
import { spanOf } from "../../src/core/sealed-spans.ts";
import { intercepted, plantedError, withFault } from "../support/faulty-io.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";
import { contentAt, type Divided, divide } from "../support/tasks.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-*");
let counter = 0;

/**
 * A conversion that tasks have written.
 *
 * @param count with 1, no tensor lies at the border of two tasks, where a merge reads them again
 */
async function written(name: string, options: ConvertOptions, from = model, count = 2): Promise<Divided> {
  const folder = join(work, String(counter++));
  mkdirSync(folder);
  const run = await divide(folder, from, name, options);
  for (let index = 0; index < count; index++) await run.task(index, count);
  return run;
}

const packed = (from = model) => written("out.isologit", { to: "packed" }, from, 1);
/** A format without digests of its own. */
const shards = (from = model) => written("out", { to: "hf" }, from, 1);

async function compareAll(run: Divided, count: number) {
  const reports = [];
  for (let index = 0; index < count; index++) reports.push(await run.compared(index, count));
  return reports;
}

const refusal = (work: Promise<unknown>): Promise<IsologitError> =>
  work.then(
    () => expect.unreachable("nothing was refused"),
    (error) => {
      expect(error).toBeInstanceOf(IsologitError);
      return error;
    },
  );

describe("the report of one process", () => {
  it.each<[string, ConvertOptions, string, number]>([
    ["an exact copy", { to: "packed" }, model, 3],
    ["FP8", { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear" }, model, 2],
    [
      "FP8 with shared scales",
      { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", fuseScales: true },
      model,
      8,
    ],
    ["FP8 by blocks", { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", quantScales: "block" }, model, 2],
    ["copies on ranks", { to: "megatron", tp: 2 }, golden("tiny"), 3],
    ["a quantised GGUF", { to: "gguf", dtype: "q8_0" }, golden("tiny"), 2],
  ])("%s", async (_, options, from, count) => {
    const run = await written("out", options, from);
    const reports = await compareAll(run, count);
    const compared = reports.reduce((sum, report) => sum + report.compared, 0);
    expect(compared).toBeGreaterThan(10);
    expect(reports.filter((report) => report.compared > 0).length).toBe(count);
    const merged = await run.merged({ tasks: count });
    const whole = await written("out", options, from);
    const single = await whole.merged();
    expect(merged.verification).toEqual({ ...single.verification, comparedByTasks: compared });
    const roles = single.verification!.tensors!.length;
    expect(compared).toBeGreaterThanOrEqual(roles); // and copies on ranks
    expect(contentAt(run.destination)).toEqual(contentAt(whole.destination));
    expect(existsSync(run.staging)).toBe(false);
  });
});

it("the merge reads no element that a task compared", async () => {
  const large = await smallModel(join(work, "large"), "M-*", { vocab_size: 50_000 });
  const run = await packed(large);
  await compareAll(run, 2);
  const reads: number[] = [];
  const ended = await intercepted(
    (name, again, args) => {
      if (name === "read") reads.push(Number(args[2]));
      return again(...args);
    },
    () => run.merged({ tasks: 2 }),
  );
  expect(ended.status).toBe("fulfilled");
  // the embedding has 6.4 MB; the sides of the border between two tasks, which the first comparing task has read, are not read again
  expect(Math.max(...reads)).toBeLessThan(500_000);
});

/** Changes a bit of a matrix of the first layer, and sets the time of the file back, to the nanosecond. */
function spoil(file: string): void {
  const before = join(work, "before");
  execFileSync("cp", ["-p", file, before]);
  const bytes = readFileSync(file);
  bytes[40_000]! ^= 1;
  writeFileSync(file, bytes);
  execFileSync("touch", ["-r", before, file]);
  expect(statSync(file).mtimeMs).toBe(statSync(before).mtimeMs);
}

const isComparing = (event: Event) => event.type === "advance" && event.phase === "bytes";

const stagedFile = (run: Divided) => join(run.staging, "data/model.safetensors");
const resultOf = (run: Divided, task: string) => join(run.staging, `compared.${task}.json`);

async function mergedWithWarnings(run: Divided, more = {}) {
  const warnings: string[] = [];
  const watch = (event: { type: string; message?: string }) =>
    event.type === "warning" && warnings.push(event.message!);
  return { report: await run.merged({ ...more, watch }), warnings };
}

describe("the merge compares again", () => {
  const AGAIN = "the files are not those that tasks compared";

  it("staged files that changed since, although size and time are those of before", async () => {
    const run = await shards();
    await compareAll(run, 2);
    spoil(stagedFile(run));
    const { report, warnings } = await mergedWithWarnings(run, { tasks: 2 });
    expect(report.verification).toMatchObject({ verdict: "different" });
    expect(report.verification).not.toHaveProperty("comparedByTasks");
    expect(warnings.join()).toContain(`${AGAIN} (0/2, 1/2)`);
    expect(existsSync(run.destination)).toBe(false);
  });

  it("a source that changed since, although size and time are those of before", async () => {
    const source = join(work, "changed");
    cpSync(model, source, { recursive: true });
    const run = await shards(source);
    await compareAll(run, 2);
    spoil(join(source, "model.safetensors"));
    const { report, warnings } = await mergedWithWarnings(run);
    expect(report.verification).toMatchObject({ verdict: "different" });
    expect(warnings.join()).toContain(AGAIN);
  });

  it.each<[string, (text: string) => string]>([
    ["was cut short", (text) => text.slice(0, -20)],
    ["is empty", () => ""],
    ["was edited", (text) => text.replace(/"message":null/, '"message":"x"')],
    ["holds other numbers than a result", (text) => text.replace(/"bytes":\d+/, '"bytes":"many"')],
    [
      "is about other files",
      (text) => text.replace(/"mark":"(.)/, (_, digit) => `"mark":"${digit === "0" ? 1 : 0}`),
    ],
  ])("a share whose result %s", async (_, change) => {
    const run = await packed();
    const [first] = await compareAll(run, 2);
    const file = resultOf(run, "1-of-2");
    writeFileSync(file, change(readFileSync(file, "utf8")));
    const { report, warnings } = await mergedWithWarnings(run, { tasks: 2 });
    expect(report.verification).toMatchObject({ verdict: "same", comparedByTasks: first!.compared });
    expect(warnings.join()).toContain(`${AGAIN} (1/2)`);
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });

  it("side files that changed since: they are written again", async () => {
    const run = await shards();
    await compareAll(run, 2);
    writeFileSync(join(run.staging, "data/config.json"), "{}");
    const { report, warnings } = await mergedWithWarnings(run);
    expect(report.verification).toMatchObject({ verdict: "same" });
    expect(warnings.join()).toContain(AGAIN);
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });

  it("what an earlier merge had begun to certify, and asks for no task again", async () => {
    const run = await packed();
    await compareAll(run, 2);
    const stopped = await withFault("link", 1, "EIO", () => run.merged({ tasks: 2 }));
    expect(stopped).toMatchObject({ status: "rejected", reason: { exit: 4 } });
    expect(existsSync(run.destination)).toBe(false);
    const { report } = await mergedWithWarnings(run, { tasks: 2 });
    expect(report.verification).toMatchObject({ verdict: "same" });
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });
});

describe("a merge whose staged files could not all be removed", () => {
  it.each([
    ["from the journals on", "rm", "journal.0-of-1.ndjson"],
    ["from the mark of a finished run on", "rm", "verified"],
    ["but for the folder", "rmdir", "out.isologit.partial"],
  ])("%s is complete, and so is another", async (_, call, file) => {
    const run = await packed();
    await compareAll(run, 2);
    let isPublished = false;
    const first = await intercepted(
      (name, again, args) => {
        isPublished ||= name === "link";
        if (!isPublished || name !== call || basename(String(args[0])) !== file) return again(...args);
        return Promise.reject(plantedError(name, "EIO"));
      },
      () => run.merged({ tasks: 2 }),
    );
    expect(first).toMatchObject({ value: { verification: { verdict: "same" } } });
    expect(existsSync(run.staging)).toBe(true);
    expect(await run.compared(0, 2)).toMatchObject({ compared: 0 });
    expect((await run.merged({ tasks: 2 })).verification).toMatchObject({ verdict: "same" });
    expect(existsSync(run.staging)).toBe(false);
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });
});

it.each([1, 2, 3])("a staging folder that cannot be listed is an error that names it: %d", async (n) => {
  const run = await packed();
  await compareAll(run, 2);
  let count = 0;
  const ended = await intercepted(
    (name, again, args) => {
      if (name !== "readdir" || args[0] !== run.staging || ++count !== n) return again(...args);
      return Promise.reject(plantedError(name, "EIO"));
    },
    () => run.merged({ tasks: 2 }),
  );
  expect(ended).toMatchObject({ reason: { code: "IO_FAILED", at: { file: run.staging } } });
});

describe("a difference", () => {
  it.each<[string, ConvertOptions, string]>([
    ["of an exact copy", { to: "hf" }, "the first differing element is"],
    [
      "of one FP8 code, by one step,",
      { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear" },
      "is not the correct rounding of the source with the stored scale",
    ],
  ])(
    "%s that a task found is the verdict of the merge, with the report of one process",
    async (_, options, saying) => {
      const run = await written("out", options, model, 1);
      await completed(run);
      spoil(stagedFile(run));
      const reports = await compareAll(run, 2);
      expect(reports.reduce((sum, { different }) => sum + different, 0)).toBe(1);
      const report = await run.merged({ tasks: 2 });
      const whole = await written("out", options, model, 1);
      await completed(whole);
      spoil(stagedFile(whole));
      const single = await whole.merged();
      const compared = reports.reduce((sum, report) => sum + report.compared, 0);
      expect(report.verification).toEqual({ ...single.verification, comparedByTasks: compared });
      expect(report.verification).toMatchObject({ verdict: "different" });
      expect(JSON.stringify(report.verification)).toContain(saying);
    },
  );

  /** Completes the staged files without a comparison that counts. */
  async function completed(run: Divided): Promise<void> {
    await run.compared(0, 1);
    rmSync(resultOf(run, "0-of-1"));
  }
});

describe("a task that compares", () => {
  it("finds damage of a source in rows that no role has", async () => {
    const source = join(work, "ranks");
    await convert(model, source, { to: "megatron", tp: 2, verify: "off" });
    const { tensors } = await openCheckpoint(source);
    const table = tensors.find(({ name }) => name.includes("word_embeddings")); // of the first rank
    const { file, offset, size } = spanOf(table!)!; // an archive has a tensor in one piece
    const bytes = readFileSync(join(source, file));
    expect(bytes[offset + size - 1]).toBe(0); // the rows without a token
    bytes[offset + size - 1] = 1;
    writeFileSync(join(source, file), bytes);
    const run = await written("out", { to: "hf" }, source);
    expect(await refusal(run.compared(0, 1))).toMatchObject({ code: "DIGEST_MISMATCH", exit: 3 });
    expect(await refusal(run.merged())).toMatchObject({ code: "DIGEST_MISMATCH", exit: 3 });
  });

  it("runs beside the others, and the first of them completes the files", async () => {
    const run = await written("out", { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear" });
    const reports = await Promise.all([3, 2, 1, 0].map((index) => run.compared(index, 4)));
    expect(reports.every(({ compared, different }) => compared > 0 && different === 0)).toBe(true);
    expect((await run.merged({ tasks: 4 })).verification).toMatchObject({ verdict: "within" });
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });

  it("waits for the tasks that write, and the merge for it", async () => {
    const folder = join(work, String(counter++));
    mkdirSync(folder);
    const run = await divide(folder, model, "out.isologit", { to: "packed" });
    expect((await refusal(run.compared(0, 2))).message).toBe("no task has begun");
    await run.task(0, 2);
    expect(await refusal(run.compared(0, 2))).toMatchObject({ code: "TASKS_UNFINISHED", exit: 4 });
    await run.task(1, 2);
    await run.compared(0, 2);
    const error = await refusal(run.merged({ tasks: 2 }));
    expect([error.code, error.message]).toEqual([
      "TASKS_UNFINISHED",
      "tasks have not compared their share: 1/2",
    ]);
    const { compared } = await run.compared(1, 2);
    expect((await run.merged({ tasks: 2 })).verification?.comparedByTasks).toBeGreaterThan(compared);
    expect(await run.compared(0, 2)).toMatchObject({ compared: 0, different: 0, bytesRead: 0 });
    expect((await run.merged({ tasks: 2 })).verification).toMatchObject({ verdict: "same" });
  });

  it("stops on request, and leaves no result", async () => {
    const run = await packed();
    const stop = new AbortController();
    const stopped = await refusal(
      run.compared(0, 1, {
        signal: stop.signal,
        watch: (event) => isComparing(event) && stop.abort(),
      }),
    );
    expect(stopped.code).toBe("INTERRUPTED");
    expect(readdirSync(run.staging).filter((name) => name.startsWith("compared"))).toEqual([]);
  });

  const rewrite = (file: string) => writeFileSync(file, readFileSync(file));
  it.each<[string, "source" | "staged", (file: string) => void, string]>([
    ["the staged files", "staged", rewrite, "FILE_CHANGED"],
    ["the source", "source", rewrite, "FILE_CHANGED"],
    ["the staged files, and sets their time back,", "staged", spoil, "STAGING_CHANGED"],
  ])("leaves no result if another program changes %s meanwhile", async (_, which, change, code) => {
    const source = join(work, `moving-${counter}`);
    cpSync(model, source, { recursive: true });
    const run = await shards(source);
    let changed = false;
    const error = await refusal(
      run.compared(0, 1, {
        watch: (event) => {
          if (!isComparing(event) || changed) return;
          changed = true;
          change(which === "source" ? join(source, "model.safetensors") : stagedFile(run));
        },
      }),
    );
    expect([error.code, error.exit]).toEqual([code, 4]);
    expect(readdirSync(run.staging).filter((name) => name.startsWith("compared"))).toEqual([]);
  });
});
