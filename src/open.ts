/** An address as a checkpoint: where it is, which format it has, what its headers say. */
import type { Format } from "../formats/define.ts";
import { formats as allFormats } from "../formats/index.ts";
import { CERTIFICATE_FILE, type Checkpoint } from "./core/checkpoint.ts";
import { IsologitError, locate as withPlace } from "./core/errors.ts";
import { storeAt } from "./io/locate.ts";

/** @throws NOT_FOUND, FORMAT_UNKNOWN, FORMAT_AMBIGUOUS, and whatever the format's reader refuses; each names the address */
export async function openCheckpoint(
  address: string,
  formats: readonly Format[] = allFormats,
): Promise<Checkpoint> {
  try {
    const store = await storeAt(address);
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
    return { ...checkpoint, sidecars: checkpoint.sidecars.filter(({ path }) => path !== CERTIFICATE_FILE) };
  } catch (error) {
    throw withPlace(error, { file: address });
  }
}
