/** Whether the source of a plan is still the source that was planned: its files have the same sizes and times. */
import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { IsologitError, systemError } from "../../core/errors.ts";
import { canonicalJson, sha256 } from "../../core/hash.ts";
import { isHubAddress } from "../../io/address.ts";
import { fileStore } from "../../io/file.ts";
import type { Plan } from "../types.ts";

/** A file that the plan reads. */
export interface SourceStamp {
  /** relative to the source, or to the folder of a source that is a file */
  readonly path: string;
  readonly size: number;
  /** time of the last change of its content, nanoseconds since 1970 */
  readonly modified: string;
}

/** Sizes and times of the files that a plan reads; none of a revision on the Hub, which cannot change. */
export async function stampSource(source: string, plan: Plan): Promise<readonly SourceStamp[]> {
  if (isHubAddress(source)) return [];
  const isFile = await isFileAt(source);
  const files = await (await fileStore(source)).list();
  const read = new Set([
    ...plan.source.checkpoint.tensors.flatMap(({ pieces }) => pieces.map(({ file }) => file)),
    ...plan.placement.copies.map(({ from }) => from.file),
  ]);
  const named = files.map(({ path }) => path).filter((path) => isFile || read.has(path));
  return await Promise.all(named.map((path) => stampAt(source, isFile, path)));
}

/** @throws PLAN_CHANGED if a file has another size or time: a run tried again would find the same; NOT_FOUND */
export async function refuseChangedSource(source: string, stamps: readonly SourceStamp[]): Promise<void> {
  if (stamps.length === 0) return;
  const isFile = await isFileAt(source);
  for (const stamp of stamps) {
    const now = await stampAt(source, isFile, stamp.path);
    if (now.size === stamp.size && now.modified === stamp.modified) continue;
    const next = "plan again, and begin all tasks anew";
    const message = "the file was changed since the conversion was planned";
    throw new IsologitError("PLAN_CHANGED", message, { file: placeOf(source, isFile, stamp.path) }, { next });
  }
}

/**
 * What every task of a plan writes into its journal. The id of a plan does not cover the content of the source, so the
 * stamps belong to it: journals of a source that was changed in between are refused.
 */
export function divisionMark(planId: string, stamps: readonly SourceStamp[]): string {
  return sha256(canonicalJson({ plan: planId, stamps }));
}

async function isFileAt(source: string): Promise<boolean> {
  const about = await stat(source).catch((error) => {
    throw systemError(error, { file: source });
  });
  return about.isFile();
}

async function stampAt(source: string, isFile: boolean, path: string): Promise<SourceStamp> {
  const file = placeOf(source, isFile, path);
  const { size, mtimeNs } = await stat(file, { bigint: true }).catch((error) => {
    throw systemError(error, { file });
  });
  return { path, size: Number(size), modified: String(mtimeNs) };
}

const placeOf = (source: string, isFile: boolean, path: string): string =>
  join(isFile ? dirname(resolve(source)) : source, path);
