/**
 * Recognises known near misses: addresses that cannot be opened, or whose tensors fit no model. Each error names the near
 * miss and the next step. This code does not run for a checkpoint that opens and fits.
 */
import type { Format } from "../../../formats/format.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Store } from "../../core/io.ts";
import { storeAt } from "../store.ts";
import { adapterAlone, adapterNames } from "./adapters.ts";
import { misnamedFile, packedArchive, shardsOfRanks, torchFilesOnly } from "./containers.ts";
import { huggingFaceNames, lostIndex, safetensorsEntries } from "./distributed.ts";
import { emptyMatrices, missingConfig, missingRanks } from "./incomplete.ts";
import { danglingLinks } from "./links.ts";
import { strayNames, wrappedNames } from "./names.ts";
import { checkpointAbove, checkpointBelow } from "./places.ts";
import { foreignQuantisation, mlxWeights, respeltScales } from "./quantised.ts";
import { type Scene, sceneOf } from "./scene.ts";
import { lfsPointers, standIns } from "./unfetched.ts";

/** Recognises one kind of near miss; null for other kinds. */
type Look = (
  scene: Scene,
  formats: readonly Format[],
) => Promise<IsologitError | null> | IsologitError | null;

/** In order of trial: missing files, other containers, incomplete checkpoints, other places. */
const NEAR_MISSES: readonly Look[] = [
  lfsPointers,
  standIns,
  packedArchive,
  misnamedFile,
  adapterAlone,
  torchFilesOnly,
  shardsOfRanks,
  safetensorsEntries,
  lostIndex,
  huggingFaceNames,
  adapterNames,
  wrappedNames,
  mlxWeights,
  foreignQuantisation,
  respeltScales,
  emptyMatrices,
  missingRanks,
  strayNames,
  checkpointBelow,
  (scene, formats) => checkpointAbove(scene, formats, openQuietly),
  missingConfig,
];

/** The address, and facts that are known already. */
interface SearchPlace {
  /** as it was given */
  readonly address: string;
  readonly formats: readonly Format[];
  /** the opened store; default: the address is opened again */
  readonly store?: Store | undefined;
  /** the opened checkpoint, if its tensors fit no model */
  readonly checkpoint?: Checkpoint;
}

/**
 * @param error the error of opening the address or matching its tensors
 * @returns     an error that names the near miss; `error` itself if no near miss is recognised
 */
export async function recognise(error: unknown, place: SearchPlace): Promise<unknown> {
  if (!(error instanceof IsologitError) || !isOfInput(error)) return error;
  try {
    const links = error.code === "NOT_FOUND" ? await danglingLinks(place.address) : null;
    const miss = links ?? (await lookAround(error, place));
    return miss === null ? error : because(miss, error);
  } catch {
    return error; // the files could not be examined: the first error stays
  }
}

/**
 * Recognises the near miss at an address; null for a checkpoint, and if no near miss is recognised.
 *
 * @param store  the store of the address; an archive is not inflated
 */
export async function nearMissAt(
  store: Store,
  { address, formats }: SearchPlace,
): Promise<IsologitError | null> {
  const answers = await Promise.all(formats.map((format) => format.detect(store)));
  const error = new IsologitError("FORMAT_UNKNOWN", "no known format is found here");
  if (answers.every((answer) => answer === "no")) return await lookAround(error, { address, formats, store });
  const scene = await sceneOf(address, store, error);
  return (await lfsPointers(scene)) ?? (await standIns(scene));
}

/** Adds the first error as the cause of the error that names the near miss. */
export function isNearMiss(error: unknown): error is IsologitError {
  return error instanceof IsologitError && error.cause instanceof IsologitError;
}

/** Errors that a near miss may cause: faults of the input, and missing files. */
const isOfInput = ({ exit, code }: IsologitError): boolean => exit === 3 || code === "NOT_FOUND";

async function lookAround(error: IsologitError, place: SearchPlace): Promise<IsologitError | null> {
  const { address, formats, checkpoint } = place;
  const store = checkpoint?.store ?? place.store ?? (await storeAt(address));
  const scene = await sceneOf(address, store, error, checkpoint);
  for (const look of NEAR_MISSES) {
    const miss = await look(scene, formats);
    if (miss !== null) return miss;
  }
  return null;
}

function because({ code, message, at, next }: IsologitError, cause: IsologitError): IsologitError {
  return new IsologitError(code, message, at, { cause, next });
}

async function openQuietly(address: string): Promise<Store | null> {
  try {
    return await storeAt(address);
  } catch {
    return null;
  }
}
