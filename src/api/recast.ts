/** `recast`: changes the dtype of a checkpoint and keeps its format. */

import { openCheckpoint } from "../checkpoint/open.ts";
import { formatOfEnding } from "../convert/prepare.ts";
import { IsologitError } from "../core/errors.ts";
import { registryOf } from "../plugins/registry.ts";
import { type ConvertOptions, type ConvertReport, convert } from "./convert.ts";

/**
 * Converts a checkpoint to another dtype in the same format.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param destination path of the file or folder to write
 * @param options as for `convert`; `dtype` or `recipe` selects the recast
 * @returns the report of `convert`
 * @throws USAGE: the ending of the destination belongs to another format; every code of `convert`
 * @example
 * await recast("./nemotron-h-8b", "./nemotron-h-8b-fp8", { dtype: "fp8-e4m3" });
 */
export async function recast(
  source: string,
  destination: string,
  options: ConvertOptions,
): Promise<ConvertReport> {
  const { format } = await openCheckpoint(source, { plugins: options.plugins, makeFiles: false });
  const named = formatOfEnding(destination, registryOf(options).formats);
  if (named !== undefined && named.id !== format) {
    const next = { next: "use convert, or a destination without that ending" };
    throw new IsologitError(
      "USAGE",
      `the source is ${format}, but the ending of ${destination} belongs to ${named.id}`,
      {},
      next,
    );
  }
  return await convert(source, destination, { ...options, to: format });
}
