/** A checkpoint with its roles and scales, or what lies there where it fits no model. */
import type { Format } from "../../formats/format.ts";
import { formats as allFormats } from "../../formats/index.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Family } from "../families/family.ts";
import { matchRoles } from "../families/match.ts";
import type { Matched } from "../families/model.ts";
import { isNearMiss, recognise } from "./near-misses/recognise.ts";
import { pairScales, type ScaleTable } from "./scales.ts";

/** @throws what pairing scales and matching roles refuse, by the name of what lies there where it is known */
export async function matchCheckpoint(
  checkpoint: Checkpoint,
  families: readonly Family[],
  formats: readonly Format[] = allFormats,
): Promise<{ readonly matched: Matched; readonly scales: ScaleTable }> {
  try {
    const scales = pairScales(checkpoint.tensors);
    return { matched: matchRoles(checkpoint, families, scales.scaleTensors), scales };
  } catch (error) {
    const told = await recognise(error, { address: checkpoint.store.url, formats, checkpoint });
    throw isNearMiss(told) ? told : namingLike(told, checkpoint);
  }
}

/** What a checkpoint does not say of its model came from another: where that does not fit, it is named. */
function namingLike(error: unknown, { hints, config }: Checkpoint): unknown {
  const { like } = hints ?? {};
  if (!(error instanceof IsologitError) || error.exit !== 3 || like === undefined) return error;
  const { code, message, at, cause } = error;
  const isAll = Object.keys(config).length === 0;
  const said = `${message}; ${isAll ? "the config" : "what its config does not say"} is from \`like\` ${like.store.url}`;
  const next = isAll ? "give `like` a checkpoint of the same architecture" : error.next;
  return new IsologitError(code, said, at, { cause, next });
}
