/**
 * Side files of a destination: which files it holds, which files are new, and which files the format has no place for,
 * so that they are carried in `isologit.origin/`.
 */
import type { WantedSidecar, WriteRequest } from "../../../formats/format.ts";
import { ORIGIN_FOLDER, ORIGIN_HEADERS, ORIGIN_ROOT, UNKNOWN_ROOT } from "../../core/carried-files.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import { isFp8 } from "../../core/dtype.ts";
import type { Config } from "../../families/structure.ts";
import type { Job } from "../types.ts";
import {
  CONFIG,
  type ConfigRequest,
  readSideFile,
  rewriteConfig,
  type SideFileMap,
  textFile,
} from "./config-file.ts";
import { withGeneration } from "./generation.ts";
import { NOTHING_RESTORED, readHeaders, readLikeFiles, readRestoredFiles } from "./restore.ts";

interface SidecarRequest extends ConfigRequest {
  /** the config record for a destination that the source's config does not fit */
  readonly config: Config;
  /** restore the files that an earlier conversion carried */
  readonly restore: boolean;
}

interface SidecarFiles extends Pick<WriteRequest, "sidecars" | "weightFiles"> {
  readonly warnings: readonly string[];
  /** files that an earlier conversion carried are among them */
  readonly restored: boolean;
}

export async function planSidecars(request: SidecarRequest): Promise<SidecarFiles> {
  const { source, writer, jobs } = request;
  const { checkpoint } = source;
  const holdsFiles = writer.config === "file";
  const restored = request.restore ? await readRestoredFiles(source) : NOTHING_RESTORED;
  const files: SideFileMap = new Map();
  for (const file of [...(await readLikeFiles(source)), ...restored.files, ...checkpoint.sidecars]) {
    files.set(file.path, file);
  }
  const generation =
    holdsFiles && !files.has(CONFIG) ? await withGeneration(files, checkpoint, request.config) : null;
  if (generation !== null)
    files.set(CONFIG, textFile(CONFIG, `${JSON.stringify(generation.config, null, 2)}\n`));
  const warnings = [
    ...restored.warnings,
    ...(generation?.warnings ?? []),
    ...(await rewriteConfig(files, request)),
  ];
  const headers = [...(await readHeaders(checkpoint, checkpoint.weightFiles)), ...restored.headers];
  const isExact = jobs.every(
    ({ cast }) => cast === undefined || (writer.notesWidening === true && widens(cast)),
  );
  const takes = (path: string) => writer.takes?.(path) ?? true;
  const all = [...files.values()];
  const carried = [
    ...all.filter(({ path }) => !takes(path)),
    ...(!holdsFiles && isExact
      ? headers.map(({ path, header }): WantedSidecar => ({ path: ORIGIN_HEADERS + path, bytes: header }))
      : []),
  ].map((file) => ({ ...file, path: ORIGIN_FOLDER + file.path }));
  if (carried.length > 0) carried.push(textFile(ORIGIN_FOLDER + ORIGIN_ROOT, `${UNKNOWN_ROOT}\n`));
  const sidecars = [...all.filter(({ path }) => takes(path)), ...carried].sort((a, b) =>
    a.path < b.path ? -1 : 1,
  );
  return {
    sidecars: writer.inlinesFiles === true ? await withBytes(sidecars, checkpoint) : sidecars,
    weightFiles: holdsFiles ? headers : [],
    warnings,
    restored: restored.files.length + restored.headers.length > 0,
  };
}

/** Whether every value stays as it is, in a wider type. */
const widens = ({ from, to, sourceScales = [] }: NonNullable<Job["cast"]>): boolean =>
  to === "F32" && sourceScales.length === 0 && !isFp8(from);

async function withBytes(
  files: WriteRequest["sidecars"],
  checkpoint: Checkpoint,
): Promise<WriteRequest["sidecars"]> {
  const read: WantedSidecar[] = [];
  for (const file of files)
    read.push("bytes" in file ? file : { path: file.path, bytes: await readSideFile(checkpoint, file) });
  return read;
}
