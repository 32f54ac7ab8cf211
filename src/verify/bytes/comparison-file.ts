/** What the tasks of the bytes rung found, as files: one process judges the comparisons of all tasks. */
import { join } from "node:path";
import { z } from "zod";
import { canonicalJson, sha256 } from "../../core/hash.ts";
import type { Store } from "../../core/io.ts";
import { listNames } from "../../io/stamps.ts";
import { readResult, real, writeResult } from "../../io/tasks/result-file.ts";
import type { Task } from "../../io/tasks/task-files.ts";
import type { ComparedContent } from "./item-comparison.ts";
import type { Comparisons } from "./pieces.ts";

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().nonnegative();
const error = { elements: count, relL2: real, clipped: real, flushed: real, notNearest: real };
const Part = z.strictObject({
  ...{ part: z.string().nullable(), relL2: real },
  ...{ lossyRows: count, lostRows: count, rows: count, first: z.int(), last: z.int() },
});
const Measures = z.strictObject({
  amax: real,
  loss: z.strictObject({ nonzero: count, zeroed: count, coarse: count, clipped: count }),
  notNearest: count,
  count,
  isRelabelled: z.boolean(),
  sums: z.strictObject({
    ...{ elements: count, nonzero: count, zeroed: count, clipped: count, notNearest: count },
    ...{ difference: real, norm: real },
  }),
  error: z.strictObject({ ...error, parts: z.array(Part).readonly() }),
});
const Content = z.strictObject({
  a: digest,
  b: digest,
  bytes: z.number().nonnegative(),
  message: z.string().nullable(),
  cast: Measures.nullable(),
  dead: z.enum(["zero", "NaN"]).nullable(),
}) satisfies z.ZodType<ComparedContent>;

const Found = z.strictObject({ items: z.record(z.string(), Content), copies: z.record(z.string(), z.int()) });

const NAME = /^compared\.(\d+)-of-(\d+)\.json$/;
const nameOf = ({ index, count }: Task): string => `compared.${index}-of-${count}.json`;

/**
 * What comparisons are about: the state of every file of both sides, and everything else that decides what they find. Two
 * processes with equal marks compare the same bytes in the same way.
 */
export async function comparisonMark(
  a: Store,
  b: Store,
  how: Readonly<Record<string, unknown>>,
): Promise<string> {
  const stateOf = async (store: Store) => (await store.stamps?.()) ?? store.url; // a revision on the Hub cannot change
  return sha256(canonicalJson({ ...how, a: await stateOf(a), b: await stateOf(b) }));
}

/** Writes what a task found. The file appears complete or not at all. */
export async function writeComparisons(
  folder: string,
  task: Task,
  mark: string,
  { items, copies }: Comparisons,
): Promise<void> {
  const found = { items: Object.fromEntries(items), copies: Object.fromEntries(copies) };
  await writeResult(join(folder, nameOf(task)), mark, found);
}

/** The tasks whose comparisons are in a folder. */
export async function comparedTasks(folder: string): Promise<readonly Task[]> {
  return (await listNames(folder)).flatMap((name) => {
    const [, index, count] = NAME.exec(name) ?? [];
    return index === undefined ? [] : [{ index: Number(index), count: Number(count) }];
  });
}

/**
 * What the tasks found about the same bytes.
 *
 * @param mark what must have been compared
 * @returns `others`: tasks that compared other files, or other states of them, or whose file is damaged
 */
export async function readComparisons(
  folder: string,
  mark: string,
): Promise<{ readonly known: Comparisons; readonly others: readonly Task[] }> {
  const [items, copies] = [new Map<string, ComparedContent>(), new Map<string, number>()];
  const others: Task[] = [];
  for (const task of await comparedTasks(folder)) {
    const found = await readResult(join(folder, nameOf(task)), mark, Found);
    if (found === null) others.push(task);
    for (const [key, content] of Object.entries(found?.items ?? {})) items.set(key, content);
    for (const [key, index] of Object.entries(found?.copies ?? {})) copies.set(key, index);
  }
  return { known: { items, copies }, others };
}
