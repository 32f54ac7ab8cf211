/** From two addresses to a plan: which checkpoint, which format, and whether it is the plan that was asked for. */
import { readFile } from "node:fs/promises";
import type { Format } from "../../formats/format.ts";
import { formats as allFormats } from "../../formats/index.ts";
import { type ChunkChecks, checkUndigestedChunks } from "../checkpoint/chunk-checks.ts";
import { loadModel } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { version } from "../version.ts";
import type { PlanOptions } from "./options.ts";
import { planConversion } from "./plan.ts";

interface Preparing {
  /** what another format kept for this one comes home; default true */
  readonly restore?: boolean;
  /** the source will be read, not only planned for; default false */
  readonly keep?: boolean;
  /** compare checksums of a format that keeps no better digests, as torch's archives do; default false */
  readonly checksums?: boolean;
}

/** Opens the source and plans; nothing is written. */
export async function preparePlan(
  source: string,
  destination: string,
  options: PlanOptions,
  { restore = true, keep = false, checksums = false }: Preparing = {},
) {
  const opened = await openCheckpoint(source, options.formats, { ...options, keep });
  const { checkpoint, complete } = checksums ? checkUndigestedChunks(opened) : whole(opened);
  const format = writtenFormat(checkpoint, destination, options);
  const model = await loadModel(checkpoint, options);
  const planned = await planConversion(model, { writer: format.writes, options, version, restore });
  return { format, model, planned, complete };
}

const whole = (checkpoint: Checkpoint): ChunkChecks => ({ checkpoint, complete: async () => {} });

/** A format that can be written. */
export type WritableFormat = Format & Required<Pick<Format, "writes">>;

/** The format asked for, the one that the destination's ending says, or the source's own. */
function writtenFormat(
  source: Checkpoint,
  destination: string,
  { to, formats = allFormats }: PlanOptions,
): WritableFormat {
  const writers = formats.filter((format): format is WritableFormat => format.writes !== undefined);
  const wanted = to ?? formatOfEnding(destination, writers)?.id ?? source.format;
  const format = writers.find(({ id }) => id === wanted);
  if (format !== undefined) return format;
  const known = writers.map(({ id }) => id).join(", ");
  throw new IsologitError(
    "NOT_WRITTEN",
    `the format ${wanted} is not written by this version; it writes ${known}`,
  );
}

/** The format whose ending a destination has. */
export function formatOfEnding(destination: string, formats: readonly Format[]): Format | undefined {
  return formats.find(({ writes }) => writes?.endings.some((ending) => destination.endsWith(ending)));
}

/** @throws PLAN_CHANGED when a file that `plan --json` wrote is of another plan */
export async function refuseOtherPlan(path: string, id: string): Promise<void> {
  const wanted: unknown = await readFile(path, "utf8")
    .then(JSON.parse)
    .catch((cause) => {
      throw cause instanceof SyntaxError
        ? new IsologitError("USAGE", "it is not a plan: no JSON", { file: path }, { cause })
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
