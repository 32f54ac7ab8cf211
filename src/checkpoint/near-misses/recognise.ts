/**
 * What lies at an address that could not be opened, or whose tensors fit no model: the near misses that people bring,
 * each told by name, with the step that leads on. Nothing here runs for a checkpoint that opens and fits.
 */
import type { Format } from "../../../formats/format.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Store } from "../../core/io.ts";
import { storeAt } from "../store.ts";
import { adapterAlone, adapterNames } from "./adapters.ts";
import { ggufFiles, misnamedFile, packedArchive, shardsOfRanks, torchFilesOnly } from "./containers.ts";
import { huggingFaceNames, lostIndex, safetensorsEntries } from "./distributed.ts";
import { emptyMatrices, missingConfig, missingRanks } from "./incomplete.ts";
import { danglingLinks } from "./links.ts";
import { strayNames, wrappedNames } from "./names.ts";
import { checkpointAbove, checkpointBelow } from "./places.ts";
import { foreignQuantisation, mlxWeights } from "./quantised.ts";
import { type Scene, sceneOf } from "./scene.ts";
import { lfsPointers, standIns } from "./unfetched.ts";

/** What a near miss is recognised by; null where it is another. */
type Look = (
  scene: Scene,
  formats: readonly Format[],
) => Promise<IsologitError | null> | IsologitError | null;

/** In order of trial: what is not here at all, what is here in another form, what is here but incomplete, where it is. */
const NEAR_MISSES: readonly Look[] = [
  lfsPointers,
  standIns,
  ggufFiles,
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
  emptyMatrices,
  missingRanks,
  strayNames,
  checkpointBelow,
  (scene, formats) => checkpointAbove(scene, formats, openQuietly),
  missingConfig,
];

/** Where to look, and what is known of it already. */
export interface SearchPlace {
  /** as it was given */
  readonly address: string;
  readonly formats: readonly Format[];
  /** opened already; default: it is opened anew */
  readonly store?: Store | undefined;
  /** what was opened, where its tensors fit no model */
  readonly checkpoint?: Checkpoint;
}

/**
 * @param error what opening the address, or matching its tensors, failed with
 * @returns     what lies there, as an error that names it; `error` itself where no near miss is recognised
 */
export async function recognise(error: unknown, place: SearchPlace): Promise<unknown> {
  if (!(error instanceof IsologitError) || !isOfInput(error)) return error;
  try {
    const links = error.code === "NOT_FOUND" ? await danglingLinks(place.address) : null;
    const told = links ?? (await lookAround(error, place));
    return told === null ? error : because(told, error);
  } catch {
    return error; // what cannot be looked at tells nothing: the first fault is the one to tell
  }
}

/**
 * What lies at an address that nobody wants to open: null for a checkpoint, and for what is not recognised.
 *
 * @param store  the address, an archive not inflated
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

/** An error that names what lies there; the fault that was met first is its cause. */
export function isNearMiss(error: unknown): error is IsologitError {
  return error instanceof IsologitError && error.cause instanceof IsologitError;
}

/** Faults that a near miss may be the cause of: those of the input, and files that are not there. */
const isOfInput = ({ exit, code }: IsologitError): boolean => exit === 3 || code === "NOT_FOUND";

async function lookAround(error: IsologitError, place: SearchPlace): Promise<IsologitError | null> {
  const { address, formats, checkpoint } = place;
  const store = checkpoint?.store ?? place.store ?? (await storeAt(address));
  const scene = await sceneOf(address, store, error, checkpoint);
  for (const look of NEAR_MISSES) {
    const told = await look(scene, formats);
    if (told !== null) return told;
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
