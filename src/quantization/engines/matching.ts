/**
 * The rules by which engines match a module with the entries of a list. Entries and modules are compared under the names
 * of engines, in which `model` stands for `backbone`. A list may have hundreds of entries and a checkpoint 40,000 experts,
 * so what depends on an entry alone, or on a module that contains many, is computed once.
 */
import { LINEAR } from "../groups.ts";
import { ancestorsOf, type Expressions, engineName, globTest } from "../module-patterns.ts";

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

/** A rule that tries one entry after the other. @param testOf makes the test of an entry for names of modules */
function eachEntry(
  testOf: (entry: string, expressions: Expressions) => (name: string) => boolean,
): MatchingRule {
  return (entries, expressions) => {
    const tests = entries.map((entry) => {
      const renamed = engineName(entry);
      // an expression or a pattern may have the stored name in its middle
      const isStored = renamed === entry && entry.includes("backbone");
      return { entry, isStored, test: testOf(renamed, expressions) };
    });
    return (module) => {
      const name = engineName(module);
      return tests.find(({ isStored, test }) => test(isStored ? module : name))?.entry;
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
  const findExpression = eachEntry((entry) => {
    const expression = entry.slice(EXPRESSION.length);
    return (name) => expressions.matchesStart(expression, name);
  })(
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
  const findEntry = eachEntry((entry) => {
    const bare = entry.endsWith("*") && !entry.endsWith(".*") ? entry.slice(0, -1) : entry;
    const tests = entry.includes("*") ? [globTest(entry)] : [];
    if (bare !== entry) tests.push(globTest(`${bare}.*`));
    return (name) => name.includes(bare) || tests.some((test) => test(name));
  })(entries, expressions);
  const findShared = remembered((container) => {
    const name = engineName(container);
    return findEntry(container) ?? entries.find((entry) => engineName(entry).includes(name));
  });
  return (module) => {
    const container = CONTAINER.exec(module)?.[1];
    return container === undefined ? findEntry(module) : findShared(container);
  };
};

/** A part of the name; `*` has no meaning. */
export const substring: MatchingRule = eachEntry((entry) => (name) => name.includes(entry));

/** Whole words between the dots of the name. */
export const partOfPath: MatchingRule = eachEntry((entry) => {
  const path = `.${entry}.`;
  return (name) => `.${name}.`.includes(path);
});

/** A pattern, or an expression of the whole name, for the module or a module that contains it; `x.*` also means `x`. */
export const patternOfAncestor: MatchingRule = (entries, expressions) => {
  const findEntry = eachEntry((entry) => {
    if (entry.startsWith(EXPRESSION)) {
      const expression = entry.slice(EXPRESSION.length);
      return (name) => expressions.matchesWhole(expression, name);
    }
    const plain = entry.endsWith(".*") ? entry.slice(0, -2) : entry;
    const matches = globTest(entry);
    return (name) => name === plain || matches(name);
  })(entries, expressions);
  const findShared = remembered(findEntry);
  return (module) => {
    const containers = ancestorsOf(module).slice(0, -1);
    for (const container of containers) {
      const entry = findShared(container);
      if (entry !== undefined) return entry;
    }
    return findEntry(module);
  };
};

/** Every entry is an expression that the name starts with, or an ending of the name. */
export const prefixOrEnding: MatchingRule = eachEntry(
  (entry, expressions) => (name) => name.endsWith(entry) || expressions.matchesStart(entry, name),
);

/** The function, which computes its result once for each name. */
function remembered(find: (name: string) => string | undefined): (name: string) => string | undefined {
  const known = new Map<string, string | undefined>();
  return (name) => {
    if (!known.has(name)) known.set(name, find(name));
    return known.get(name);
  };
}
