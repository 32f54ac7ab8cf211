/** Which files of many: patterns as Python's `hf` reads them, where `*` crosses folders and `dir/` means all below it. */
import picomatch from "picomatch";

export interface Choice {
  readonly include?: readonly string[] | undefined;
  readonly exclude?: readonly string[] | undefined;
}

/** @returns whether a path is asked for: one of `include`, where there is any, and none of `exclude` */
export function chosen({ include = [], exclude = [] }: Choice): (path: string) => boolean {
  const wanted = include.length === 0 ? () => true : matcher(include);
  const unwanted = exclude.length === 0 ? () => false : matcher(exclude);
  return (path) => wanted(path) && !unwanted(path);
}

/** Only `*`, `?` and `[…]` mean something: a file may well be called `a{b}.json` or `!x`. */
function matcher(patterns: readonly string[]): (path: string) => boolean {
  const whole = patterns.map((pattern) => (pattern.endsWith("/") ? `${pattern}*` : pattern));
  const options = { bash: true, dot: true, nobrace: true, noextglob: true, nonegate: true };
  const tests = whole.map((pattern) => picomatch(pattern, options));
  return (path) => tests.some((test) => test(path));
}
