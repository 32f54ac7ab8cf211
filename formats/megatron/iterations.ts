/** Chooses one of several checkpoints in a folder of Megatron: `iter_0000100/`, `release/`, or the folder itself. */
import { IsologitError } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import type { ReadOptions } from "../format.ts";

export const TRACKER = "latest_checkpointed_iteration.txt";
const MAX_TRACKER_BYTES = 64;
/** The path of a file of a rank, below the folder of its iteration. */
export const RANK_FILE = /^mp_rank_\d+(_\d+){0,2}\/model_(optim_)?rng\.pt$/;

export function iterationFolder(iteration: number): string {
  return `iter_${String(iteration).padStart(7, "0")}/`;
}

/** Folders directly below the top that contain a file whose path in the folder matches. "" is the top itself. */
export function foldersWith(paths: readonly string[], marker: RegExp): string[] {
  const found = new Set<string>();
  for (const path of paths) {
    const [, folder = "", rest = path] = /^((?:iter_\d+|release)\/)?(.*)$/.exec(path) ?? [];
    if (marker.test(rest)) found.add(folder);
  }
  return [...found];
}

/**
 * The folder to read: the requested iteration, else the one in the tracker file, else the latest.
 *
 * @param folders  result of `foldersWith`, not empty
 * @throws NOT_FOUND, with the existing folders; HEADER_INVALID for a tracker file without an iteration
 */
export async function chooseIterationFolder(
  store: Store,
  folders: readonly string[],
  { iteration }: ReadOptions,
): Promise<string> {
  if (iteration !== undefined) return present(iterationFolder(iteration), folders, store.url);
  if (folders.includes("")) return "";
  const tracked = await trackedFolder(store);
  if (tracked !== undefined) return present(tracked, folders, TRACKER);
  return folders.toSorted((a, b) => numberOf(a) - numberOf(b)).at(-1)!; // `folders` is not empty
}

async function trackedFolder(store: Store): Promise<string | undefined> {
  if (!(await store.list()).some(({ path }) => path === TRACKER)) return undefined;
  const text = new TextDecoder().decode(await readSmall(store, TRACKER, MAX_TRACKER_BYTES)).trim();
  if (text === "release") return "release/";
  if (/^\d{1,15}$/.test(text)) return iterationFolder(Number(text));
  const message = `it says ${JSON.stringify(text)}, expected an iteration or "release"`;
  throw new IsologitError("HEADER_INVALID", message, { file: TRACKER });
}

function present(folder: string, folders: readonly string[], asker: string): string {
  if (folders.includes(folder)) return folder;
  const there = folders.map((name) => name || "the folder itself").join(", ");
  throw new IsologitError(
    "NOT_FOUND",
    `there is no checkpoint in ${folder}; existing checkpoints: ${there}`,
    {
      file: asker,
    },
  );
}

/** The number of an iteration. A release is the end of training, so it comes last. */
function numberOf(folder: string): number {
  return folder === "release/" ? Number.POSITIVE_INFINITY : Number(/\d+/.exec(folder)?.[0] ?? 0);
}
