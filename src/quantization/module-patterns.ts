/** Patterns by which a config selects modules: names, `*`, and regular expressions of Python. */
import { runInNewContext } from "node:vm";

/** Regular expressions of Python, tried on a known set of names. */
export interface Expressions {
  /** Like `re.match`: at the start of a name, and not necessarily to its end. An expression that cannot be evaluated matches nothing. */
  matchesStart(expression: string, name: string): boolean;
  /** like `re.fullmatch` */
  matchesWhole(expression: string, name: string): boolean;
  /** expressions that are not valid in JavaScript, or take too long */
  readonly untried: ReadonlySet<string>;
}

/** Real expressions take microseconds for a name. A hostile expression may run forever, so V8 stops it after this time. */
const TIMEOUT_MS = 500;

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

/** @param names all names that will be asked for: an expression is evaluated for all of them at once */
export function createExpressions(names: readonly string[]): Expressions {
  const found = new Map<string, ReadonlySet<string>>();
  const plain = new Map<string, boolean>();
  const untried = new Set<string>();
  const namesMatching = (expression: string, source: string): ReadonlySet<string> => {
    const known = found.get(source);
    if (known !== undefined) return known;
    let hits: ReadonlySet<string> = new Set();
    try {
      // TRY_ALL makes an array with one boolean for each name
      const results = runInNewContext(
        TRY_ALL,
        { ...javaScriptOf(source), names },
        { timeout: TIMEOUT_MS },
      ) as boolean[];
      hits = new Set(names.filter((_, i) => results[i]));
    } catch {
      untried.add(expression);
    }
    found.set(source, hits);
    return hits;
  };
  return {
    untried,
    matchesStart(expression, name) {
      if (!plain.has(expression)) plain.set(expression, isPlain(expression));
      return plain.get(expression) === true
        ? startsLike(expression, name)
        : namesMatching(expression, expression).has(name);
    },
    matchesWhole: (expression, name) => namesMatching(expression, `(?:${expression})$`).has(name),
  };
}

/** A name of a module as an expression: only its dots are special. Such entries are many, and need no evaluation. */
const isPlain = (expression: string) => /^[\w.-]*$/.test(expression);

function startsLike(expression: string, name: string): boolean {
  if (expression.length > name.length) return false;
  for (let i = 0; i < expression.length; i++) {
    if (expression[i] !== "." && expression[i] !== name[i]) return false;
  }
  return true;
}

/**
 * The test whether a whole name matches a pattern in which `*` means any characters. Not done by an expression, because one
 * with many `*` may take forever.
 */
export function globTest(pattern: string): (name: string) => boolean {
  if (!pattern.includes("*")) return (name) => name === pattern;
  const [first = "", ...rest] = pattern.split("*");
  const last = rest.pop() ?? "";
  return (name) => {
    if (!name.startsWith(first)) return false;
    let at = first.length;
    for (const part of rest) {
      const found = name.indexOf(part, at);
      if (found < 0) return false;
      at = found + part.length;
    }
    return name.length - last.length >= at && name.endsWith(last);
  };
}

/** The name by which engines know a module or an entry of a list: they rename `backbone` to `model`. */
export function engineName(name: string): string {
  return name.replace(/^backbone/, "model");
}

/** A module and the modules that contain it. */
export function ancestorsOf(module: string): readonly string[] {
  const parts = module.split(".");
  return parts.map((_, i) => parts.slice(0, i + 1).join("."));
}
