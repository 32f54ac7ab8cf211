/** Paths of files inside a checkpoint. They are untrusted input and must not lead out of its folder. */
import { type ErrorLocation, IsologitError } from "./errors.ts";

/**
 * Returns `path` if it is a plain relative path with `/` between its names.
 *
 * @throws PATH_UNSAFE for an empty, absolute or drive path, an empty name, `.` or `..`, a backslash, a control character
 */
export function safePath(path: string, at: ErrorLocation = {}): string {
  const bad =
    /[\\\p{Cc}]|^[A-Za-z]:/u.test(path) || path.split("/").some((n) => n === "" || n === "." || n === "..");
  if (!bad) return path;
  throw new IsologitError("PATH_UNSAFE", `${JSON.stringify(path)} is not a plain path inside the folder`, at);
}
