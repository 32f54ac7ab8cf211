/** The file that `plan` writes: what other processes need to run the plan, on this machine or on another. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { refuseChangedSource, type SourceStamp, stampSource } from "../convert/tasks/source-stamps.ts";
import type { Plan } from "../convert/types.ts";
import { FNUZ_HANDLINGS, RECAST_TARGETS } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { isHubAddress } from "../io/address.ts";
import { WEIGHT_SCALES } from "../plugins/quantization-dialect.ts";
import { CALIBRATION_RULES } from "../quantization/calibration.ts";
import type { SearchOptions } from "../sensitivity/options.ts";

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

const Stamp = z.strictObject({ path: text, size: count, modified: text.regex(/^\d+$/) });

/** The form of a plan file, as far as it is read. */
const PlanFile = z.object({
  id: text,
  run: z.strictObject({
    source: text,
    destination: text,
    options: RunOptions,
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
  /** sizes and times of the files that the plan reads; none of a revision on the Hub, which cannot change */
  readonly stamps: readonly SourceStamp[];
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
  return {
    source: place,
    destination: resolve(destination),
    options,
    stamps: await stampSource(source, planned),
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
