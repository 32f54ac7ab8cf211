/** Names and patterns by which a config tells modules apart: whole names, parents, `*`, and `re:` expressions. */
import { runInNewContext } from "node:vm";

export interface Patterns {
  /** An expression that could not be tried matches nothing. */
  matches(pattern: string, module: string): boolean;
  /** expressions that are no JavaScript, or take too long */
  readonly untried: ReadonlySet<string>;
}

const EXPRESSION = "re:";

/** Real expressions take microseconds a name. One that a stranger wrote may take forever: V8 stops it. */
const TIMEOUT_MS = 500;

/** As Python's `re.match`: from the start of a name, and not to its end. */
const TRY_ALL = "const e = new RegExp(source, flags); names.map((n) => ((e.lastIndex = 0), e.test(n)))";

/** What Python spells otherwise. */
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

/** @param modules all that will be asked for: expressions are tried on all of them at once */
export function patternsOver(modules: readonly string[]): Patterns {
  const found = new Map<string, ReadonlySet<string>>();
  const untried = new Set<string>();
  const names = modules.flatMap(spellings);
  const tried = (pattern: string): ReadonlySet<string> => {
    const known = found.get(pattern);
    if (known !== undefined) return known;
    let hits: ReadonlySet<string> = new Set();
    try {
      const globals = { ...javaScriptOf(pattern.slice(EXPRESSION.length)), names };
      // an array of booleans, one a name, as the code above makes it
      const results = runInNewContext(TRY_ALL, globals, { timeout: TIMEOUT_MS }) as boolean[];
      hits = new Set(names.filter((_, i) => results[i]));
    } catch {
      untried.add(pattern);
    }
    found.set(pattern, hits);
    return hits;
  };
  return {
    untried,
    matches(pattern, module) {
      const own = spellings(module);
      if (pattern.startsWith(EXPRESSION)) return own.some((name) => tried(pattern).has(name));
      if (pattern.includes("*")) return own.some((name) => inOrder(pattern.split("*"), name));
      return own.some((name) => name === pattern || name.startsWith(`${pattern}.`));
    },
  };
}

/** Names of one module: engines map `backbone` to `model`. */
function spellings(module: string): readonly string[] {
  return [module, module.replace(/^backbone\./, "model.")];
}

/** `*` is any run of characters. Written out, since a pattern with many may be one that takes an expression forever. */
function inOrder(parts: readonly string[], name: string): boolean {
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
