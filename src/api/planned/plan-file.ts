/** The file that `plan` writes: what other processes need to run the plan, on this machine or on another. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { calibrateModel } from "../../calibrate/calibrate.ts";
import type { RunOptions as MachineOptions } from "../../checkpoint/options.ts";
import { CalibrationRecord } from "../../convert/conversion-record.ts";
import type { Choosing } from "../../convert/prepare.ts";
import { refuseChangedSource, type SourceStamp, stampSource } from "../../convert/tasks/source-stamps.ts";
import type { Plan } from "../../convert/types.ts";
import { FNUZ_HANDLINGS, RECAST_TARGETS } from "../../core/dtype.ts";
import { IsologitError, systemError } from "../../core/errors.ts";
import type { Recipe as FamilyRecipe } from "../../families/family.ts";
import { isHubAddress } from "../../io/address.ts";
import { WEIGHT_SCALES } from "../../plugins/quantization-dialect.ts";
import { CALIBRATION_RULES, type Calibration } from "../../quantization/calibration.ts";
import type { SearchOptions } from "../../sensitivity/options.ts";
import type { RecipeSearch } from "../../sensitivity/report.ts";
import { searchRecipe } from "../../sensitivity/search.ts";

const count = z.int().nonnegative();
const text = z.string();

/** The options of `plan` that the conversion needs too; those of the machine are given to each process. */
const RunOptions = z.strictObject({
  to: text.exactOptional(),
  dtype: z.enum(RECAST_TARGETS).exactOptional(),
  recipe: text.exactOptional(),
  bits: z.number().exactOptional(),
  keepEnds: count.exactOptional(),
  quantDialect: text.exactOptional(),
  quantScales: z.enum(WEIGHT_SCALES).exactOptional(),
  fnuz: z.enum(FNUZ_HANDLINGS).exactOptional(),
  fuseScales: z.boolean().exactOptional(),
  maxShardBytes: count.exactOptional(),
  alignment: count.exactOptional(),
  tp: count.exactOptional(),
  pp: count.exactOptional(),
  keepExtra: z.boolean().exactOptional(),
  allowOverflow: z.boolean().exactOptional(),
  vocabSize: count.exactOptional(),
  like: text.exactOptional(),
  iteration: count.exactOptional(),
  calibrate: z.union([z.literal(true), text]).exactOptional(),
  calibrateRule: z.enum(CALIBRATION_RULES).exactOptional(),
  kvCache: z.literal("fp8").exactOptional(),
  tolerance: text.exactOptional(),
  kl: z.number().exactOptional(),
  klP99: z.number().exactOptional(),
  top1: z.number().exactOptional(),
  ids: z.array(count).readonly().exactOptional(),
  prompt: text.exactOptional(),
  tokens: count.exactOptional(),
  seed: count.exactOptional(),
}) satisfies z.ZodType<SearchOptions>;

type RunOptions = z.infer<typeof RunOptions>;

const Recipe = z.strictObject({
  id: text,
  source: text.exactOptional(),
  keepEnds: count,
  cast: z.array(text).readonly(),
  keep: z.array(text).readonly().exactOptional(),
  keepLayers: z.array(count).readonly().exactOptional(),
  keepBefore: z
    .array(z.strictObject({ kind: text, next: text }))
    .readonly()
    .exactOptional(),
  types: z.record(text, z.array(text).readonly()).exactOptional(),
}) satisfies z.ZodType<FamilyRecipe>;

const scales = z.record(text, z.number().positive());

/** What forward passes of the source found when the conversion was planned: no other process runs them again. */
const Chosen = z.strictObject({
  /** for `recipe` "auto" */
  recipe: Recipe.exactOptional(),
  /** for `calibrate`: scales by role key */
  calibration: z
    .strictObject({
      record: CalibrationRecord,
      inputs: scales,
      cached: scales,
      warnings: z.array(text).readonly(),
    })
    .exactOptional(),
});

const Stamp = z.strictObject({ path: text, size: count, modified: text.regex(/^\d+$/) });

/** The form of a plan file, as far as it is read. */
const PlanFile = z.object({
  id: text,
  run: z.strictObject({
    source: text,
    destination: text,
    options: RunOptions,
    chosen: Chosen.exactOptional(),
    stamps: z.array(Stamp).readonly(),
  }),
});

/** What a process needs to run a plan. */
export interface PlannedRun {
  /** absolute path of the source, or its address with the commit */
  readonly source: string;
  /** absolute path */
  readonly destination: string;
  /** the options of the plan, without those of the machine */
  readonly options: Readonly<Record<string, unknown>>;
  /** what forward passes of the source found for `recipe` "auto" and `calibrate`; absent: no pass ran */
  readonly chosen?: ChosenByRuns;
  /** sizes and times of the files that the plan reads; none of a revision on the Hub, which cannot change */
  readonly stamps: readonly SourceStamp[];
}

/** A recipe, and scales by role key. */
interface ChosenByRuns {
  readonly recipe?: FamilyRecipe;
  readonly calibration?: Omit<Calibration, "inputs" | "cached"> & {
    readonly inputs: Readonly<Record<string, number>>;
    readonly cached: Readonly<Record<string, number>>;
  };
}

/** A plan file that was read. */
export interface ReadPlan extends PlannedRun {
  readonly id: string;
  readonly options: RunOptions;
}

/** Options whose value may be a path; a name stays a name. */
const PATHS = ["recipe", "like", "calibrate", "tolerance"] as const;

/** What another process needs to run a plan, from the folder of any host that sees the same files. */
export async function plannedRun(
  source: string,
  destination: string,
  given: SearchOptions,
  planned: Plan,
  { recipe, calibration }: { readonly recipe: FamilyRecipe | null; readonly calibration: Calibration | null },
): Promise<PlannedRun> {
  const place = isHubAddress(source) ? planned.source.checkpoint.store.url : resolve(source);
  const names = Object.keys(RunOptions.shape) as (keyof RunOptions)[]; // the schema has no other keys
  const options = Object.fromEntries(
    names.flatMap((name) => (given[name] === undefined ? [] : [[name, given[name]]])),
  );
  for (const name of PATHS) {
    const value = options[name];
    if (typeof value === "string" && existsSync(value)) options[name] = resolve(value);
  }
  const chosen = {
    ...(recipe !== null && { recipe }),
    ...(calibration !== null && {
      calibration: {
        ...calibration,
        inputs: Object.fromEntries(calibration.inputs),
        cached: Object.fromEntries(calibration.cached),
      },
    }),
  };
  return {
    source: place,
    destination: resolve(destination),
    options,
    ...(Object.keys(chosen).length > 0 && { chosen }),
    stamps: await stampSource(source, planned),
  };
}

/** The choices of a plan file. The id of the plan covers them. */
export function chosenBefore(
  { options, chosen = {} }: ReadPlan,
  machine: MachineOptions,
): Choosing<RecipeSearch | null> {
  const { recipe, calibration } = chosen;
  return {
    searchRecipe: async (model, planWith, writer) =>
      recipe === undefined
        ? await searchRecipe(model, { ...options, ...machine }, planWith, writer)
        : { recipe, search: null },
    calibrate: async (model) =>
      calibration === undefined
        ? await calibrateModel(model, { ...options, ...machine })
        : {
            ...calibration,
            inputs: new Map(Object.entries(calibration.inputs)),
            cached: new Map(Object.entries(calibration.cached)),
          },
  };
}

/**
 * Reads a file that `plan` wrote, and compares the source with it.
 *
 * @throws USAGE if it is not a plan that can be run; PLAN_CHANGED if the source is not the source that was planned
 */
export async function readPlan(file: string): Promise<ReadPlan> {
  const found: unknown = await readFile(file, "utf8")
    .then(JSON.parse)
    .catch((cause) => {
      if (!(cause instanceof SyntaxError)) throw systemError(cause, { file });
      throw new IsologitError("USAGE", "it is not a plan: it is not JSON", { file }, { cause });
    });
  const parsed = PlanFile.safeParse(found);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue === undefined ? "" : `: ${issue.path.join(".")}: ${issue.message}`;
    const next = "write it with `isologit plan SRC DST --out FILE` of this version";
    throw new IsologitError("USAGE", `it is not a plan that can be run${where}`, { file }, { next });
  }
  const { id, run } = parsed.data;
  await refuseChangedSource(run.source, run.stamps);
  return { id, ...run };
}
