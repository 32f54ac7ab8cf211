/** Side files of a destination that come from elsewhere than the source's own: from `isologit.origin/`, or from `like`. */
import type { WantedSidecar, WriteRequest } from "../../../formats/format.ts";
import { ORIGIN_FOLDER, ORIGIN_HEADERS } from "../../core/carried-files.ts";
import type { Checkpoint, Sidecar } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import { canonicalJson } from "../../core/hash.ts";
import { parseJsonObject } from "../../core/json.ts";
import { shapeOf } from "../../core/mapping/layout.ts";
import { Sources } from "../../core/read.ts";
import { tensorsWritten } from "../../families/expand.ts";
import type { MatchedModel } from "../../families/model.ts";
import { dialectOf } from "../../families/recognise.ts";
import type { Settings } from "../../families/structure.ts";
import { CONFIG, CONFIG_DIALECT, readSideFile } from "./config-file.ts";

/** What an earlier conversion carried for the way back. */
interface RestoredFiles {
  readonly files: readonly Sidecar[];
  readonly headers: WriteRequest["weightFiles"];
  readonly warnings: readonly string[];
}

export const NOTHING_RESTORED: RestoredFiles = { files: [], headers: [], warnings: [] };

/** The files in `isologit.origin/`, if their config.json describes this model; else a warning. */
export async function readRestoredFiles(source: MatchedModel): Promise<RestoredFiles> {
  const { carriedFiles, store } = source.checkpoint;
  if (carriedFiles === undefined) return NOTHING_RESTORED;
  const { sidecars } = carriedFiles;
  const files = sidecars.filter(({ path }) => !path.startsWith(ORIGIN_HEADERS));
  const headers = sidecars
    .filter(({ path }) => path.startsWith(ORIGIN_HEADERS))
    .map(({ path, span }) => ({ path: path.slice(ORIGIN_HEADERS.length), header: span }));
  const config = files.find(({ path }) => path === CONFIG);
  if (config !== undefined) {
    const bytes = await readSideFile(source.checkpoint, config);
    const weightFiles = headers.map(({ path }) => path);
    const fault = faultOfConfig(source, () => readSettings(bytes, source, weightFiles));
    if (fault !== null) return { ...NOTHING_RESTORED, warnings: [fault] };
  }
  return { files, headers: await readHeaders({ store }, headers), warnings: [] };
}

/** Every byte before the first tensor, for each weight file. */
export async function readHeaders(
  { store }: Pick<Checkpoint, "store">,
  weightFiles: Checkpoint["weightFiles"],
): Promise<WriteRequest["weightFiles"]> {
  await using sources = new Sources(store);
  const headers: { path: string; header: Uint8Array }[] = [];
  for (const { path, header } of weightFiles) {
    headers.push({ path, header: await sources.bytes(header.file, header.offset, header.size) });
  }
  return headers;
}

/**
 * Side files of the `like` checkpoint, as bytes, since they are in another store.
 *
 * @throws CONFIG_INVALID if its config.json describes another model than the source
 */
export async function readLikeFiles(source: MatchedModel): Promise<readonly WantedSidecar[]> {
  const { like } = source.checkpoint.hints ?? {};
  if (like === undefined) return [];
  // its index names its own weight files
  const sidecars = like.sidecars.filter(({ path }) => !path.endsWith(".safetensors.index.json"));
  const files = await Promise.all(
    sidecars.map(async (file) => ({ path: file.path, bytes: await readSideFile(like, file) })),
  );
  const config = files.find(({ path }) => path === CONFIG);
  if (config !== undefined) refuseOtherModel(like, source, () => readSettings(config.bytes, source, []));
  return files;
}

/**
 * Settings in a config.json, read for a folder with exactly the tensors of `source`: a config may describe layers that
 * the folder did not have.
 *
 * @param weightFiles names of the weight files beside config.json; empty if unknown
 */
function readSettings(config: Uint8Array, source: MatchedModel, weightFiles: readonly string[]): Settings {
  const dialect = dialectOf(source.family, CONFIG_DIALECT);
  const tensors = tensorsWritten(source, dialect).map(({ name, layout }) => ({
    name,
    shape: shapeOf(layout),
  }));
  const record = parseJsonObject(config, { file: CONFIG, nonFinite: true });
  const files = weightFiles.length > 0 ? { files: weightFiles } : {};
  return dialect.settings(record, { tensors, ...files }).settings;
}

/** Why the carried files do not belong to these weights; null if they do. */
function faultOfConfig({ settings }: MatchedModel, read: () => Settings): string | null {
  try {
    if (canonicalJson(read()) === canonicalJson(settings)) return null;
    return `${ORIGIN_FOLDER} belongs to another model than the weights beside it: its files are not restored`;
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    return `${ORIGIN_FOLDER}${CONFIG} is refused, and the files beside it are not restored: ${error.message}`;
  }
}

/** @throws CONFIG_INVALID if the config of a `like` checkpoint is refused, or describes another model than the source */
function refuseOtherModel(like: Checkpoint, { settings }: MatchedModel, read: () => Settings): void {
  const refusal = (message: string, cause?: unknown) => {
    const next = "give `like` a checkpoint of the same architecture";
    const located = `\`like\` ${like.store.url}: ${message}`;
    return new IsologitError("CONFIG_INVALID", located, { file: CONFIG }, { next, cause });
  };
  let found: Settings;
  try {
    found = read();
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    throw refusal(error.message, error);
  }
  if (canonicalJson(found) !== canonicalJson(settings))
    throw refusal("its config describes another model than the source");
}

/**
 * Whether the weights changed since `isologit.origin/` was written.
 *
 * @param root content root of the checkpoint that holds the carried files; null if it was not computed
 */
export function belongsToOtherWeights({ carriedFiles }: Checkpoint, root: string | null): boolean {
  return (
    carriedFiles !== undefined && carriedFiles.root !== "" && root !== null && carriedFiles.root !== root
  );
}
