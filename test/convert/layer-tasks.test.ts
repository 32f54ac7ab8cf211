/** Tasks that run layers of the forward passes: the merge goes on where they ended, and reports what one process finds. */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import type { MergeTaskOptions, MergeTaskReport } from "../../src/api/tasks/merge-task.ts";
import type { Event } from "../../src/core/events.ts";
import { lockAt } from "../../src/io/lock.ts";
import { writeResult } from "../../src/io/tasks/result-file.ts";
import { intercepted } from "../support/faulty-io.ts";
import { familyGolden, golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { smallModel } from "../support/small.ts";
import { contentAt, type Divided, divide } from "../support/tasks.ts";

const work = workFolder();
const LAYERS = "M-*M-*M-";
const model = await smallModel(join(work, "model"), LAYERS);
const FP8 = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear" } as const;
let counter = 0;

/** A conversion that one task has written. */
async function written(options: ConvertOptions, from = model): Promise<Divided> {
  const folder = join(work, String(counter++));
  mkdirSync(folder);
  const run = await divide(folder, from, "out", { verify: "logits", ...options });
  await run.task(0, 1);
  return run;
}

async function inOrder(run: Divided, count: number): Promise<readonly MergeTaskReport[]> {
  const reports = [];
  for (let index = 0; index < count; index++) reports.push(await run.compared(index, count));
  return reports;
}

const spans = (reports: readonly MergeTaskReport[]) =>
  reports.map(({ layers }) => layers && [layers.from, layers.to]);
const states = (run: Divided) => readdirSync(run.staging).filter((name) => name.startsWith("layers."));
const layerEvents = (events: readonly Event[]) => events.filter(({ type }) => type === "layer").length;

/** The bytes rung tells of layers too. */
async function mergedWithEvents(run: Divided, more = {}) {
  const events: Event[] = [];
  const report = await run.merged({ ...more, watch: (event) => events.push(event) });
  const phase = events.findIndex((event) => event.type === "phase" && event.phase === "logits");
  const bytes = events.findIndex((event, i) => i > phase && event.type === "phase");
  return { report, layers: layerEvents(events.slice(phase, bytes < 0 ? undefined : bytes)), events };
}

describe("the report of one process", () => {
  it.each<[string, ConvertOptions, string, number]>([
    ["an exact copy", { to: "hf" }, model, 3],
    ["FP8", FP8, model, 3],
    ["FP8 on text", { ...FP8, tokens: 20, seed: 5 }, model, 2],
    ["experts and prediction layers", { to: "hf" }, golden("latent-moe"), 2],
    ["experts, recast", FP8, golden("moe"), 3],
    ["ranks", { to: "megatron", tp: 2 }, golden("tiny"), 2],
  ])("%s", async (_, options, from, count) => {
    const run = await written(options, from);
    const reports = await inOrder(run, count);
    const ran = reports.flatMap(({ layers }) => layers ?? []);
    expect(ran.length).toBeGreaterThan(1);
    for (const [i, { from }] of ran.entries()) expect(from).toBe(ran[i - 1]?.to ?? 0);
    const whole = await written(options, from);
    const single = (await whole.merged()).verification!;
    const { report, layers } = await mergedWithEvents(run, { tasks: count });
    const { comparedByTasks, layersByTasks, ...verification } = report.verification!;
    expect(verification).toEqual(single);
    expect(comparedByTasks).toBeGreaterThan(10);
    expect(layersByTasks).toBe(ran.at(-1)!.to);
    expect(layers).toBe(metricsWith(single, "logits", "layers").layers.length - layersByTasks!);
    expect(contentAt(run.destination)).toEqual(contentAt(whole.destination));
  });
});

/** Changes the bytes of a tensor in a safetensors file. */
function edit(file: string, tensor: string, change: (elements: Buffer) => void): void {
  const bytes = readFileSync(file);
  const from = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, from).toString());
  const [lo, hi] = header[tensor].data_offsets;
  change(bytes.subarray(from + lo, from + hi));
  writeFileSync(file, bytes);
}

/** Changes one byte of a tensor in the staged files, after the first comparing task has completed them. */
async function spoiled(run: Divided, tensor: string): Promise<void> {
  await run.compared(0, 1, { verify: "bytes" });
  rmSync(join(run.staging, "compared.0-of-1.json"));
  edit(join(run.staging, "data/model.safetensors"), tensor, (elements) => {
    elements[0]! ^= 1;
  });
}

it("a control that is void in the layers of one task is tried in those of the next", async () => {
  const source = await smallModel(join(work, "zeros"), LAYERS);
  for (const what of ["up_proj", "down_proj"]) {
    const tensor = `backbone.layers.1.mixer.${what}.weight`;
    edit(join(source, "model.safetensors"), tensor, (elements) => elements.fill(0));
  }
  const run = await written({ to: "hf" }, source);
  const reports = await inOrder(run, 3);
  expect(reports[0]!.layers!.to).toBeLessThan(5); // the next layer of that kind
  const { report } = await mergedWithEvents(run, { tasks: 3 });
  const whole = await written({ to: "hf" }, source);
  const single = (await whole.merged()).verification!;
  expect(report.verification!.rungs).toEqual(single.rungs);
  const { controls } = metricsWith(single, "logits", "controls");
  expect(controls.filter(({ kind, matrix, caught }) => kind === "mlp" && matrix && caught)).toMatchObject([
    { layer: 4 },
    { layer: 4 },
  ]);
});

it("zeros stay expected from task to task", async () => {
  const source = join(work, "zeros of another family");
  cpSync(familyGolden("nemotron"), source, { recursive: true });
  // nothing enters the residual stream, so exchanged gains of its norms show nothing
  const silent = [0, 1, 2, 3].flatMap((layer) =>
    ["self_attn.o_proj", "mlp.down_proj"].map((what) => `model.layers.${layer}.${what}.weight`),
  );
  for (const tensor of ["model.embed_tokens.weight", ...silent])
    edit(join(source, "model.safetensors"), tensor, (elements) => elements.fill(0));
  const run = await written({ to: "packed" }, source);
  expect(spans(await inOrder(run, 8)).filter((span) => span !== null).length).toBeGreaterThan(3);
  const merged = (await run.merged({ tasks: 8 })).verification!;
  const whole = await written({ to: "packed" }, source);
  const single = (await whole.merged()).verification!;
  expect(merged.rungs).toEqual(single.rungs);
  const { controls } = metricsWith(single, "logits", "controls");
  expect(controls.filter(({ void: why }) => why === "zero input").length).toBeGreaterThan(1);
});

describe("a difference", () => {
  it.each(["backbone.layers.0.mixer.in_proj.weight", "backbone.layers.6.mixer.out_proj.weight"])(
    "of one FP8 code of %s is found at its door, as by one process",
    async (tensor) => {
      const run = await written(FP8);
      await spoiled(run, tensor);
      const reports = await inOrder(run, 3);
      expect(reports.reduce((sum, { different }) => sum + different, 0)).toBe(1);
      const merged = (await run.merged({ tasks: 3 })).verification!;
      const whole = await written(FP8);
      await spoiled(whole, tensor);
      const single = (await whole.merged()).verification!;
      const { comparedByTasks: _, layersByTasks, ...verification } = merged;
      expect(layersByTasks).toBeGreaterThan(5);
      expect(verification).toEqual(single);
      expect(verification).toMatchObject({ verdict: "different", firstDivergence: { tensors: [tensor] } });
      const { wiring } = metricsWith(single, "logits", "wiring");
      expect(wiring.maxRelL2).toBeGreaterThan(wiring.limit);
    },
  );

  it("of an exact copy makes the merge run a longer prompt from the start", async () => {
    const run = await written({ to: "hf" });
    await spoiled(run, "backbone.layers.4.mixer.up_proj.weight");
    await inOrder(run, 2);
    expect(states(run).length).toBe(2);
    const { report } = await mergedWithEvents(run, { tasks: 2 });
    expect(report.verification).toMatchObject({ verdict: "different" });
    expect(report.verification).not.toHaveProperty("layersByTasks");
  });
});

describe("the merge runs all layers again", () => {
  const whole = LAYERS.length;

  it.each<[string, (text: string) => string]>([
    ["was cut short", (text) => text.slice(0, -20)],
    ["was edited", (text) => text.replace(/"flips":0/, '"flips":1')],
    ["is about other files", (text) => text.replace(/"mark":"(.)/, (_, d) => `"mark":"${d === "0" ? 1 : 0}`)],
  ])("after a last state that %s, from the state before", async (_, change) => {
    const run = await written(FP8);
    const reports = await inOrder(run, 2);
    const [last, before] = states(run).sort().reverse();
    const file = join(run.staging, last!);
    writeFileSync(file, change(readFileSync(file, "utf8")));
    const { report, layers } = await mergedWithEvents(run, { tasks: 2 });
    expect(report.verification).toMatchObject({ verdict: "within" });
    expect(before).toBe(`layers.${reports[0]!.layers!.to}.json`);
    expect(report.verification?.layersByTasks).toBe(reports[0]!.layers!.to);
    expect(layers).toBe(whole - reports[0]!.layers!.to);
  });

  it("not even for a state that fits by its marks and not by its size", async () => {
    const run = await written(FP8);
    await inOrder(run, 1);
    const file = join(run.staging, `layers.${whole}.json`);
    const { mark, found } = JSON.parse(readFileSync(file, "utf8"));
    await writeResult(file, mark, { ...found, residuals: found.residuals.slice(1) });
    await expect(run.merged()).rejects.toMatchObject({ code: "STAGING_CHANGED", exit: 4 });
  });

  it("for other tokens", async () => {
    const run = await written(FP8);
    await inOrder(run, 2);
    const { report, layers } = await mergedWithEvents(run, { ids: [3, 1, 4, 1, 5] });
    expect(report.verification).not.toHaveProperty("layersByTasks");
    expect(layers).toBe(whole);
  });

  it("for files that changed since", async () => {
    const run = await written(FP8);
    await inOrder(run, 2);
    const file = join(run.staging, "data/model.safetensors");
    writeFileSync(file, readFileSync(file));
    const { report, layers } = await mergedWithEvents(run);
    expect(report.verification).toMatchObject({ verdict: "within" });
    expect(report.verification).not.toHaveProperty("layersByTasks");
    expect(layers).toBe(whole);
  });
});

describe("a task", () => {
  it("leaves its layers where no task before it runs, and the last task runs the layers of those that have ended", async () => {
    const run = await written(FP8);
    const [last, middle, first] = [
      await run.compared(2, 3),
      await run.compared(1, 3),
      await run.compared(0, 3),
    ];
    expect(spans([last!, middle!, first!])).toEqual([null, null, [0, LAYERS.length]]);
    const { report, layers } = await mergedWithEvents(run, { tasks: 3 });
    expect(report.verification).toMatchObject({ verdict: "within", layersByTasks: LAYERS.length });
    expect(layers).toBe(0);
  });

  it("waits for those before it while they run", async () => {
    const run = await written({ to: "hf" });
    const reports = await Promise.all([3, 2, 1, 0].map((index) => run.compared(index, 4)));
    const ran = spans(reports.toReversed()).filter((span) => span !== null);
    expect(ran[0]![0]).toBe(0);
    expect(Math.max(...ran.flat())).toBe(LAYERS.length);
    expect((await run.merged({ tasks: 4 })).verification).toMatchObject({
      verdict: "same",
      layersByTasks: LAYERS.length,
    });
  });

  it("does not wait for one that has ended without a state", async () => {
    const run = await written({ to: "hf" });
    await run.compared(0, 2, { verify: "bytes" });
    expect(states(run)).toEqual([]);
    const lock = await lockAt(join(run.staging, "compare.0-of-2.lock"), { beats: true });
    let isOver = false;
    const waiting = run.compared(1, 2).finally(() => {
      isOver = true;
    });
    while (!readdirSync(run.staging).includes("compared.1-of-2.json"))
      await new Promise((resolve) => setTimeout(resolve, 20));
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(isOver).toBe(false);
    await lock[Symbol.asyncDispose]();
    expect((await waiting).layers).toBe(null);
  });

  it("that is stopped while it waits compares nothing again", async () => {
    const run = await written({ to: "hf" });
    await run.compared(0, 2, { verify: "bytes" });
    const stop = new AbortController();
    {
      await using _ = await lockAt(join(run.staging, "compare.0-of-2.lock"), { beats: true });
      const waiting = run.compared(1, 2, { signal: stop.signal });
      while (!readdirSync(run.staging).includes("compared.1-of-2.json"))
        await new Promise((resolve) => setTimeout(resolve, 20));
      stop.abort();
      await expect(waiting).rejects.toMatchObject({ code: "INTERRUPTED", exit: 5 });
    }
    expect(readdirSync(run.staging).filter((name) => name.startsWith("compare."))).toEqual([]);
    let bytes = 0;
    const again = await intercepted(
      (name, real, args) => {
        if (name === "read") bytes += Number(args[2]);
        return real(...args);
      },
      () => run.compared(0, 2, { verify: "bytes" }),
    );
    expect(again).toMatchObject({ status: "fulfilled", value: { bytesRead: 0 } });
    expect(bytes).toBeLessThan(statSync(join(model, "model.safetensors")).size / 2);
    const first = await run.compared(0, 2);
    expect(first).toMatchObject({ bytesRead: 0, layers: { from: 0, to: LAYERS.length } });
    expect(first.compared).toBeGreaterThan(10);
  });

  it("runs once at a time, and no merge beside it", async () => {
    const run = await written({ to: "hf" });
    await run.compared(0, 1);
    await using _ = await lockAt(join(run.staging, "compare.0-of-1.lock"), { beats: true });
    const refused = { code: "DESTINATION_BUSY", exit: 4 };
    await expect(run.compared(0, 1)).rejects.toMatchObject(refused);
    await expect(run.merged()).rejects.toMatchObject(refused);
  });

  it("runs no layer for `verify` bytes", async () => {
    const run = await written({ to: "hf" });
    expect((await run.compared(0, 1, { verify: "bytes" })).layers).toBe(null);
    expect(states(run)).toEqual([]);
  });

  it("is refused before it writes if `verify` is off", async () => {
    const run = await written({ to: "hf" });
    const before = readdirSync(run.staging);
    const off = { verify: "off" } as unknown as MergeTaskOptions; // a caller without types
    await expect(run.compared(0, 1, off)).rejects.toMatchObject({ code: "USAGE", exit: 2 });
    expect(readdirSync(run.staging)).toEqual(before);
  });

  it("writes the same state again", async () => {
    const run = await written(FP8);
    await inOrder(run, 2);
    const before = states(run).map((name) => readFileSync(join(run.staging, name), "utf8"));
    await run.compared(1, 2);
    expect(states(run).map((name) => readFileSync(join(run.staging, name), "utf8"))).toEqual(before);
  });
});
