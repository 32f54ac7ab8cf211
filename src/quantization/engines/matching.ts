/**
 * The rules by which engines match a module with the entries of a list. An entry and a module are compared under the
 * names of the file, and under the engine's names, in which `model` stands for `backbone`.
 */
import { LINEAR } from "../groups.ts";
import { ancestorsOf, type Expressions, engineName, matchesGlob } from "../module-patterns.ts";

/**
 * How an engine finds the entry of a list that leaves a module as it is.
 *
 * @returns a function of a module's stored name without `.weight`; undefined: no entry hits the module
 */
export type MatchingRule = (
  entries: readonly string[],
  expressions: Expressions,
) => (module: string) => string | undefined;

const EXPRESSION = "re:";

/** A rule that looks at one entry after the other. */
function eachEntry(hits: (entry: string, name: string, expressions: Expressions) => boolean): MatchingRule {
  return (entries, expressions) => {
    const known = entries.map((entry) => [entry, engineName(entry)] as const);
    return (module) => {
      const name = engineName(module);
      return known.find(
        ([entry, renamed]) => hits(entry, module, expressions) || hits(renamed, name, expressions),
      )?.[0];
    };
  };
}

/** The whole name. */
export const equalNames: MatchingRule = (entries) => {
  const byName = new Map(entries.map((entry) => [engineName(entry), entry]));
  return (module) => byName.get(engineName(module));
};

/** The whole name, or an expression that the name starts with. */
export const equalOrExpression: MatchingRule = (entries, expressions) => {
  const findEqual = equalNames(entries, expressions);
  const findExpression = eachEntry((entry, name) => startsWithExpression(entry, name, expressions))(
    entries.filter((entry) => entry.startsWith(EXPRESSION)),
    expressions,
  );
  return (module) => findEqual(module) ?? findExpression(module);
};

/** The same, and the class of all linear modules. */
export const equalExpressionOrClass: MatchingRule = (entries, expressions) => {
  const findEntry = equalOrExpression(entries, expressions);
  return entries.includes(LINEAR) ? () => LINEAR : findEntry;
};

/** The modules of a routed expert are one module of an engine. */
const CONTAINER = /^(.*\.experts)\.\d+\.\w+$/;

/** The whole name, a part of it, or a pattern; `x*` also stands for `x` and `x.*`. Routed experts share an entry. */
export const substringOrPattern: MatchingRule = (entries, expressions) => {
  const findEntry = eachEntry((entry, name) => {
    const bare = entry.endsWith("*") && !entry.endsWith(".*") ? entry.slice(0, -1) : entry;
    return (
      name.includes(bare) || matchesGlob(entry, name) || (bare !== entry && matchesGlob(`${bare}.*`, name))
    );
  })(entries, expressions);
  return (module) => {
    const container = CONTAINER.exec(module)?.[1];
    if (container === undefined) return findEntry(module);
    return findEntry(container) ?? entries.find((entry) => engineName(entry).includes(engineName(container)));
  };
};

/** A part of the name; `*` has no meaning. */
export const substring: MatchingRule = eachEntry((entry, name) => name.includes(entry));

/** Whole words between the dots of the name. */
export const partOfPath: MatchingRule = eachEntry((entry, name) => `.${name}.`.includes(`.${entry}.`));

/** A pattern, or an expression of the whole name, for the module or a module that contains it; `x.*` also means `x`. */
export const patternOfAncestor: MatchingRule = eachEntry((entry, name, expressions) => {
  if (entry.startsWith(EXPRESSION)) {
    const expression = entry.slice(EXPRESSION.length);
    return ancestorsOf(name).some((ancestor) => expressions.matchesWhole(expression, ancestor));
  }
  const plain = entry.endsWith(".*") ? entry.slice(0, -2) : entry;
  return ancestorsOf(name).some((ancestor) => ancestor === plain || matchesGlob(entry, ancestor));
});

/** Every entry is an expression that the name starts with, or an ending of the name. */
export const prefixOrEnding: MatchingRule = eachEntry(
  (entry, name, expressions) => name.endsWith(entry) || expressions.matchesStart(entry, name),
);

function startsWithExpression(entry: string, name: string, expressions: Expressions): boolean {
  return entry.startsWith(EXPRESSION) && expressions.matchesStart(entry.slice(EXPRESSION.length), name);
}
