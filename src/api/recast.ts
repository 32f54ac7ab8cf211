/** `recast`: `convert` that keeps the format. */

import { formats as allFormats } from "../../formats/index.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { formatOfEnding } from "../convert/prepare.ts";
import { IsologitError } from "../core/errors.ts";
import { type ConvertOptions, type ConvertReport, convert } from "./convert.ts";

/**
 * `convert` that keeps the format.
 *
 * @throws USAGE when the destination's ending says another format
 */
export async function recast(
  source: string,
  destination: string,
  options: ConvertOptions,
): Promise<ConvertReport> {
  const { format } = await openCheckpoint(source, options.formats);
  const said = formatOfEnding(destination, options.formats ?? allFormats);
  if (said !== undefined && said.id !== format) {
    const next = { next: "use convert, or a destination without that ending" };
    throw new IsologitError(
      "USAGE",
      `the source is ${format}, but ${destination} ends as ${said.id} does`,
      {},
      next,
    );
  }
  return await convert(source, destination, { ...options, to: format });
}
