/** An address as a checkpoint: where it is, which format it has, what its headers say. */
import type { Format } from "../formats/define.ts";
import { formats as allFormats } from "../formats/index.ts";
import type { Checkpoint } from "./core/checkpoint.ts";
import { IsologitError, locate as withPlace } from "./core/errors.ts";
import type { Watch } from "./core/events.ts";
import type { Store } from "./core/io.ts";
import { connect } from "./hub/connection.ts";
import { hubSettings } from "./hub/settings.ts";
import { type HubStore, hubStore } from "./hub/store.ts";
import { fileStore } from "./io/file.ts";
import { addressOf } from "./io/locate.ts";

export interface OpenOptions {
  /** The data will be read more than once: what comes from the Hub is fetched once, into its cache. */
  readonly keep?: boolean;
  readonly watch?: Watch | undefined;
}

/** @throws NOT_FOUND, FORMAT_UNKNOWN, FORMAT_AMBIGUOUS, and whatever the format's reader refuses; each names the address */
export async function openCheckpoint(
  address: string,
  formats: readonly Format[] = allFormats,
  options: OpenOptions = {},
): Promise<Checkpoint> {
  try {
    const store = await storeAt(address, options.keep ?? false);
    const answers = await Promise.all(
      formats.map(async (format) => ({ format, answer: await format.detect(store) })),
    );
    const [first, second] =
      ["yes", "maybe"]
        .map((answer) => answers.filter((a) => a.answer === answer))
        .find((found) => found.length > 0) ?? [];
    if (first === undefined) throw new IsologitError("FORMAT_UNKNOWN", "no known format is found here");
    if (second !== undefined) {
      throw new IsologitError("FORMAT_AMBIGUOUS", `it is both ${first.format.id} and ${second.format.id}`);
    }
    const checkpoint = await first.format.read(store);
    return options.keep && "kept" in store ? kept(checkpoint, store, options.watch) : checkpoint;
  } catch (error) {
    throw withPlace(error, { file: address });
  }
}

async function storeAt(text: string, keep: boolean): Promise<Store | HubStore> {
  const address = addressOf(text);
  if (address.kind === "local") return await fileStore(address.path);
  return await hubStore(connect(await hubSettings()), address, keep);
}

/** Headers were read by ranges; from here on a file is fetched whole when a byte of it is wanted. */
function kept(checkpoint: Checkpoint, store: HubStore, watch: Watch | undefined): Checkpoint {
  const files = checkpoint.tensors.flatMap(({ pieces }) => pieces.map(({ file }) => file));
  return { ...checkpoint, store: store.kept([...new Set(files)], watch) };
}
