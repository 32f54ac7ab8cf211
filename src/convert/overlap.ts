/** Refuses destinations that overlap with the source. */
import { realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { isHubAddress } from "../io/address.ts";
import { stagingPath } from "../io/destination.ts";

/**
 * A destination inside its source would become part of the source. A source inside the destination, or inside its staging
 * folder, would be removed with them. The root of the file system contains every source except one on the Hub.
 *
 * @throws USAGE
 */
export async function refuseOverlap(source: string, destination: string): Promise<void> {
  if (dirname(resolve(destination)) === resolve(destination)) {
    throw new IsologitError("USAGE", "the destination is the root of the file system", { file: destination });
  }
  if (isHubAddress(source)) return;
  const from = await realpath(source).catch((cause) => Promise.reject(systemError(cause, { file: source })));
  const to = await realPlace(destination);
  const within = (inner: string, outer: string) => inner === outer || inner.startsWith(`${outer}/`);
  const fault = within(to, from)
    ? "the destination lies inside the source"
    : [to, stagingPath(to)].some((outer) => within(from, outer))
      ? "the source lies inside the destination"
      : undefined;
  if (fault !== undefined) throw new IsologitError("USAGE", fault, { file: destination });
}

/** The real path of a path that need not exist: links on the way are followed. */
async function realPlace(path: string): Promise<string> {
  const above = dirname(resolve(path));
  const found = await realpath(above).catch((cause) => {
    if (cause.code === "ENOENT") return realPlace(above);
    throw systemError(cause, { file: path });
  });
  return join(found, basename(resolve(path)));
}
