/** The files by which a NeMo 2 folder is known. */
import { DIST_MARKER } from "../torch-dist/marker.ts";

export const CONTEXT = "context/";
/** of every stored name */
export const PREFIX = "module.";

/** The folder of the weights; undefined if there are none. */
export function weightsAmong(paths: readonly string[]): string | undefined {
  return ["weights/", ""].find((folder) =>
    paths.some((path) => path.startsWith(folder) && DIST_MARKER.test(path.slice(folder.length))),
  );
}
