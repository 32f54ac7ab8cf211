/** A source that another program changes after its header was read: FILE_CHANGED with the file, and nothing wrong in view. */
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { prune } from "../../src/api/pruning/prune.ts";
import { verify } from "../../src/api/verify.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Event, Watch } from "../../src/core/events.ts";
import { bytesAt } from "../support/fault-loop.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";
import { divide } from "../support/tasks.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-M-");
const WEIGHTS = "model.safetensors";
let counter = 0;

const CHANGES: readonly [string, (file: string) => void][] = [
  ["grows", (file) => appendFileSync(file, "x")],
  ["shrinks", (file) => truncateSync(file, statSync(file).size - 2)],
  ["is replaced by the same bytes", (file) => replaceFile(file)],
];

function replaceFile(file: string): void {
  cpSync(file, `${file}.new`);
  rmSync(file);
  cpSync(`${file}.new`, file);
  rmSync(`${file}.new`);
}

/** Runs `work` on a copy of the model, whose weights change at the start of a phase: headers have been read, and no band has. */
async function changedAt(
  phase: string,
  change: (file: string) => void,
  run: (source: string, out: string, watch: Watch) => Promise<unknown>,
) {
  const folder = join(work, String(counter++));
  const [source, out] = [join(folder, "source"), join(folder, "out")];
  mkdirSync(folder);
  cpSync(model, source, { recursive: true });
  let changed = false;
  const watch = (event: Event) => {
    if (event.type !== "phase" || event.phase !== phase || changed) return;
    changed = true;
    change(join(source, WEIGHTS));
  };
  const error: unknown = await run(source, out, watch).then(
    () => expect.unreachable("nothing was refused"),
    (error) => error,
  );
  expect(changed).toBe(true);
  expect(error).toBeInstanceOf(IsologitError);
  expect(error).toMatchObject({ code: "FILE_CHANGED", exit: 4, at: { file: WEIGHTS } });
  const restore = () => {
    rmSync(source, { recursive: true });
    cpSync(model, source, { recursive: true });
  };
  return { folder, source, out, left: readdirSync(folder), restore };
}

const LEAN: ConvertOptions = { threads: 1, memoryBytes: 2 ** 20, checkpointBytes: 9_000 };
const QUICK = { ids: [1, 2, 3], threads: 1 } as const;

describe.each(CHANGES)("a source that %s", (_, change) => {
  it.each<[string, string, ConvertOptions]>([
    ["before it is copied", "convert", { to: "hf", verify: "off" }],
    ["before it is cast", "convert", { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" }],
    ["before it is compared", "bytes", { to: "nemo2", verify: "bytes" }],
    ["before the forward passes", "logits", { to: "packed", ...QUICK }],
  ])("%s", async (_, phase, options) => {
    const run = (source: string, out: string, watch?: Watch) =>
      convert(source, out, { ...LEAN, ...options, ...(watch && { watch }) });
    const { out, left, source, restore } = await changedAt(phase, change, run);
    expect(left).toEqual(["source"]); // another source must not be mixed in by a resumed run
    restore();
    await run(source, out);
    const right = join(work, `right-${counter}`);
    await run(model, right);
    expect(bytesAt(out)).toEqual(bytesAt(right));
  });

  it("while it is pruned", async () => {
    const { left } = await changedAt("convert", change, (source, out, watch) =>
      prune(source, out, { drop: [0], to: "hf", ...QUICK, watch }),
    );
    expect(left).toEqual(["source"]);
  });

  it("while it is verified", async () => {
    const copy = join(work, "copy.isologit");
    if (!existsSync(copy)) await convert(model, copy, { ...LEAN, verify: "off" });
    for (const phase of ["bytes", "logits"])
      await changedAt(phase, change, (source, _, watch) => verify(source, copy, { ...QUICK, watch }));
  });

  it("while a task reads it: the staged files stay, and no other task accepts the source", async () => {
    let task: (index: number) => Promise<unknown> = async () => {};
    const { left } = await changedAt("convert", change, async (source, _, watch) => {
      const run = await divide(join(source, ".."), source, "out", { to: "hf" });
      task = (index) => run.task(index, 2);
      return await run.task(0, 2, { watch });
    });
    expect(left.sort()).toEqual(["out.partial", "plan.json", "source"]);
    await expect(task(1)).rejects.toMatchObject({ code: "PLAN_CHANGED", exit: 2 });
  });
});
