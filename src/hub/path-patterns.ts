/** Selects files by patterns, like Python's `hf`: `*` also matches slashes, and `dir/` means every file below it. */
import picomatch from "picomatch";

export interface PathPatterns {
  readonly include?: readonly string[] | undefined;
  readonly exclude?: readonly string[] | undefined;
}

/** @returns a test for paths: a path matches a pattern of `include` (if there are any) and none of `exclude` */
export function pathFilter({ include = [], exclude = [] }: PathPatterns): (path: string) => boolean {
  const wanted = include.length === 0 ? () => true : matcher(include);
  const unwanted = exclude.length === 0 ? () => false : matcher(exclude);
  return (path) => wanted(path) && !unwanted(path);
}

/** Only `*`, `?` and `[…]` are special: a file can have the name `a{b}.json` or `!x`. */
function matcher(patterns: readonly string[]): (path: string) => boolean {
  const whole = patterns.map((pattern) => (pattern.endsWith("/") ? `${pattern}*` : pattern));
  const options = { bash: true, dot: true, nobrace: true, noextglob: true, nonegate: true };
  const tests = whole.map((pattern) => picomatch(pattern, options));
  return (path) => tests.some((test) => test(path));
}
