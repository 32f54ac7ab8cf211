/** Opens a source, chooses the format of the destination, and plans the conversion. */
import { readFile } from "node:fs/promises";
import type { Format, Writer } from "../../formats/format.ts";
import { type ChunkChecks, checkUndigestedChunks } from "../checkpoint/chunk-checks.ts";
import { type LoadedModel, loadModel, matchModel } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { relabelFnuz } from "../checkpoint/scales/relabel.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { isFnuz } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { registryOf } from "../plugins/registry.ts";
import { type Calibration, refuseCalibration } from "../quantization/calibration.ts";
import { version } from "../version.ts";
import type { PlanOptions } from "./options.ts";
import { planConversion } from "./plan.ts";
import type { Plan } from "./types.ts";

/** Makes the choices of a plan that need forward passes of the source. This room does not run models. */
export interface Choosing<S> {
  /** finds the recipe "auto"; null if the options name another */
  readonly searchRecipe: (
    model: LoadedModel,
    planWith: (recipe: Recipe) => Promise<Plan>,
    writer: Writer,
  ) => Promise<{ readonly recipe: Recipe; readonly search: S } | null>;
  /** finds the scales of `calibrate`; null if that is not asked for */
  readonly calibrate: (model: LoadedModel) => Promise<Calibration | null>;
}

interface Preparing<S> extends Choosing<S> {
  /** restore the files that an earlier conversion into another format kept in `isologit.origin/`; default true */
  readonly restore?: boolean;
  /** the source will be read later, not only planned; default false */
  readonly keep?: boolean;
  /** compare checksums of formats that have no better digests, such as torch archives; default false */
  readonly checksums?: boolean;
}

/**
 * Opens the source and plans; nothing is written. `model` is the source as it is stored, also where the plan relabels its
 * weights: a verification must not read the source through what it verifies.
 */
export async function preparePlan<S>(
  source: string,
  destination: string,
  options: PlanOptions,
  { searchRecipe, calibrate, restore = true, keep = false, checksums = false }: Preparing<S>,
) {
  const opened = await openCheckpoint(source, { ...options, keep });
  const { checkpoint, complete } = checksums ? checkUndigestedChunks(opened) : whole(opened);
  const format = writtenFormat(checkpoint, destination, options);
  const model = await loadModel(checkpoint, options);
  refuseFnuz(options, model);
  const asked = options.fnuz === "relabel" ? matchModel(relabelFnuz(checkpoint), options) : model;
  refuseCalibration(options, asked);
  const common = { writer: format.writes, options, version, restore };
  // A plan with any scales finds the errors of all options before the forward passes, which take long.
  const planWith = (recipe?: Recipe) =>
    planConversion(asked, {
      ...common,
      ...(recipe !== undefined && { recipe }),
      calibration: options.calibrate === undefined ? null : anyScales(model),
    });
  const found = await searchRecipe(model, planWith, format.writes);
  if (options.calibrate !== undefined) await planWith(found?.recipe);
  const calibration = await calibrate(model);
  const planned = await planConversion(asked, {
    ...common,
    ...(found !== null && { recipe: found.recipe }),
    calibration,
  });
  const { recipe = null, search = null } = found ?? {};
  return { format, model, planned, complete, search, chosen: { recipe, calibration } };
}

/** @throws USAGE for the option `fnuz` without FNUZ weights */
function refuseFnuz({ fnuz }: PlanOptions, { checkpoint }: LoadedModel): void {
  if (fnuz === undefined || checkpoint.tensors.some(({ dtype }) => isFnuz(dtype))) return;
  throw new IsologitError("USAGE", "`fnuz` has no meaning where no weight has a FNUZ type");
}

/** A calibration in which every scale is 1. */
function anyScales({ roles }: LoadedModel): Calibration {
  const scales = new Map([...roles.keys()].map((key) => [key, 1]));
  return {
    record: { prompt: "bundled", tokens: 0, sha256: "0".repeat(64) },
    inputs: scales,
    cached: scales,
    warnings: [],
  };
}

const whole = (checkpoint: Checkpoint): ChunkChecks => ({ checkpoint, complete: async () => {} });

/** A format that can be written. */
export type WritableFormat = Format & Required<Pick<Format, "writes">>;

/** The requested format, else that of the destination's ending, else that of the source. */
export function writtenFormat(source: Checkpoint, destination: string, options: PlanOptions): WritableFormat {
  const writers = registryOf(options).formats.filter(
    (format): format is WritableFormat => format.writes !== undefined,
  );
  const wanted = options.to ?? formatOfEnding(destination, writers)?.id ?? source.format;
  const format = writers.find(({ id }) => id === wanted);
  if (format !== undefined) return inPartsIfAsked(format, destination, options);
  const known = writers.map(({ id }) => id).join(", ");
  throw new IsologitError(
    "NOT_WRITTEN",
    `the format ${wanted} is not written by this version; it writes ${known}`,
  );
}

/** @throws USAGE for a destination that is named as one file */
function inPartsIfAsked(
  format: WritableFormat,
  destination: string,
  { maxShardBytes }: PlanOptions,
): WritableFormat {
  const { endings, inParts } = format.writes;
  if (maxShardBytes === undefined || inParts === undefined) return format;
  if (!endings.some((ending) => destination.endsWith(ending))) return { ...format, writes: inParts };
  const message = `with \`maxShardBytes\` the destination is a folder of files, and ${destination} is named as one file`;
  const next = `give the path of a folder, and \`to\` ${format.id}`;
  throw new IsologitError("USAGE", message, {}, { next });
}

/** The format that the ending of a destination means. */
export function formatOfEnding(destination: string, formats: readonly Format[]): Format | undefined {
  return formats.find(({ writes }) => writes?.endings.some((ending) => destination.endsWith(ending)));
}

/** @throws PLAN_CHANGED if the file, which `plan --json` wrote, contains another plan */
export async function refuseOtherPlan(path: string, id: string): Promise<void> {
  const wanted: unknown = await readFile(path, "utf8")
    .then(JSON.parse)
    .catch((cause) => {
      throw cause instanceof SyntaxError
        ? new IsologitError("USAGE", "it is not a plan: it is not JSON", { file: path }, { cause })
        : systemError(cause, { file: path });
    });
  const planned = wanted !== null && typeof wanted === "object" && "id" in wanted ? wanted.id : undefined;
  if (planned !== id) {
    throw new IsologitError(
      "PLAN_CHANGED",
      `this conversion is plan ${id}; the file says ${String(planned)}`,
      { file: path },
    );
  }
}
