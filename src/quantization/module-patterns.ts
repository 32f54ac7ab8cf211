/** Names and patterns by which a config selects modules: whole names, parents, `*`, and `re:` expressions. */
import { runInNewContext } from "node:vm";

export interface Patterns {
  /** An expression that could not be evaluated matches nothing. */
  matches(pattern: string, module: string): boolean;
  /** expressions that are not valid in JavaScript, or take too long */
  readonly untried: ReadonlySet<string>;
}

const EXPRESSION = "re:";

/** Real expressions take microseconds for a name. A hostile expression may run forever, so V8 stops it after this time. */
const TIMEOUT_MS = 500;

/** Matches like Python's `re.match`: at the start of a name, and not necessarily to its end. */
const TRY_ALL = "const e = new RegExp(source, flags); names.map((n) => ((e.lastIndex = 0), e.test(n)))";

/** Syntax of Python, and its equivalent in JavaScript. */
const PYTHON = [
  [/\(\?P</g, "(?<"],
  [/\(\?P=(\w+)\)/g, "\\k<$1>"],
  [/\\A/g, "^"],
  [/\\Z/g, "$"],
] as const;

function javaScriptOf(expression: string): { readonly source: string; readonly flags: string } {
  const anyCase = expression.startsWith("(?i)");
  const source = PYTHON.reduce(
    (text, [from, to]) => text.replace(from, to),
    expression.slice(anyCase ? 4 : 0),
  );
  return { source, flags: anyCase ? "yi" : "y" };
}

/** The names that an expression of Python matches at their start; null if it is not valid in JavaScript, or takes too long. */
export function namesMatching(expression: string, names: readonly string[]): ReadonlySet<string> | null {
  try {
    // TRY_ALL makes an array with one boolean for each name
    const results = runInNewContext(
      TRY_ALL,
      { ...javaScriptOf(expression), names },
      { timeout: TIMEOUT_MS },
    ) as boolean[];
    return new Set(names.filter((_, i) => results[i]));
  } catch {
    return null;
  }
}

/** @param modules all modules that `matches` will be called with: an expression is evaluated for all of them at once */
export function createPatterns(modules: readonly string[]): Patterns {
  const found = new Map<string, ReadonlySet<string>>();
  const untried = new Set<string>();
  const names = modules.flatMap(namesOf);
  const hitsOf = (pattern: string): ReadonlySet<string> => {
    const known = found.get(pattern);
    if (known !== undefined) return known;
    const hits = namesMatching(pattern.slice(EXPRESSION.length), names);
    if (hits === null) untried.add(pattern);
    found.set(pattern, hits ?? new Set());
    return hits ?? new Set();
  };
  return {
    untried,
    matches(pattern, module) {
      const names = namesOf(module);
      if (pattern.startsWith(EXPRESSION)) return names.some((name) => hitsOf(pattern).has(name));
      if (pattern.includes("*")) return names.some((name) => containsInOrder(pattern.split("*"), name));
      return names.some((name) => name === pattern || name.startsWith(`${pattern}.`));
    },
  };
}

/** All names of a module: engines rename `backbone` to `model`. */
function namesOf(module: string): readonly string[] {
  return [module, module.replace(/^backbone\./, "model.")];
}

/** `*` matches any characters. Not done by an expression, because one with many `*` may take forever. */
export function containsInOrder(parts: readonly string[], name: string): boolean {
  const [first = "", ...rest] = parts;
  if (!name.startsWith(first)) return false;
  const last = rest.pop() ?? "";
  let at = first.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}
