/** A conversion that tasks run, and the same conversion by one process. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { convertTask, type TaskOptions, type TaskReport } from "../../src/api/tasks/convert-task.ts";
import { merge } from "../../src/api/tasks/merge.ts";
import { type MergeTaskOptions, type MergeTaskReport, mergeTask } from "../../src/api/tasks/merge-task.ts";
import { filesOf } from "./goldens.ts";

const SMALL = { threads: 1, memoryBytes: 64 * 1024 * 1024 } as const;

/** The content of a destination, by path. */
export const contentAt = (path: string): ReadonlyMap<string, string> =>
  statSync(path).isDirectory() ? filesOf(path) : new Map([["", readFileSync(path).toString("base64")]]);

export interface Divided {
  readonly planFile: string;
  readonly destination: string;
  readonly staging: string;
  /** runs a task */
  readonly task: (index: number, count: number, more?: TaskOptions) => Promise<TaskReport>;
  /** verifies a share of what the tasks wrote */
  readonly compared: (index: number, count: number, more?: MergeTaskOptions) => Promise<MergeTaskReport>;
  readonly merged: (more?: Parameters<typeof merge>[1]) => ReturnType<typeof merge>;
  /** what one process writes */
  readonly alone: () => Promise<ReadonlyMap<string, string>>;
}

/**
 * Plans a conversion in a folder.
 *
 * @param name of the destination
 */
export async function divide(
  folder: string,
  source: string,
  name: string,
  { verify = "bytes", ...options }: ConvertOptions,
): Promise<Divided> {
  const [planFile, destination] = [join(folder, "plan.json"), join(folder, name)];
  await plan(source, destination, { ...options, out: planFile });
  return {
    ...{ planFile, destination, staging: `${destination}.partial` },
    task: (index, count, more = {}) => convertTask(planFile, { index, count }, { ...SMALL, ...more }),
    compared: (index, count, more = {}) =>
      mergeTask(planFile, { index, count }, { ...SMALL, ...(verify !== "off" && { verify }), ...more }),
    merged: (more = {}) => merge(planFile, { ...SMALL, verify, ...more }),
    alone: async () => {
      const path = join(folder, `alone-${name}`);
      await convert(source, path, { ...SMALL, ...options, verify });
      return contentAt(path);
    },
  };
}
