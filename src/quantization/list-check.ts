/** Checks a list of modules before it is written: under the rule of every engine it must hit exactly the listed modules. */
import { IsologitError } from "../core/errors.ts";
import { ENGINES } from "./engines/index.ts";
import { ancestorsOf, createExpressions, engineName } from "./module-patterns.ts";

/**
 * @param method of the `quantization_config`
 * @param list   whole names of the modules that are not FP8
 * @param cast   whole names of the modules that are FP8, under each name by which a library knows them
 * @throws PLAN_IMPOSSIBLE if an engine would leave an FP8 module as it is
 */
export function refuseWrongHits(method: string, list: readonly string[], cast: readonly string[]): void {
  const all = cast.join("\n");
  // Almost no entry is a part of another module's name, and an entry without `.` in the place of `.` cannot hit one.
  const suspects = list.filter((entry) => new RegExp(entry.replaceAll(/[^\w.]/g, "\\$&")).test(all));
  if (suspects.length === 0) return;
  const names = cast.flatMap(ancestorsOf).flatMap((name) => [name, engineName(name)]);
  const expressions = createExpressions([...new Set(names)]);
  for (const { name, methods } of ENGINES) {
    const findEntry = methods[method]?.findEntry(suspects, expressions);
    if (findEntry === undefined) continue;
    for (const module of cast) {
      const entry = findEntry(module);
      if (entry === undefined) continue;
      const message = `${name} would take ${module} for a module that is not FP8, because its list contains ${entry}`;
      const next = "use a recipe that treats both alike, or another `quantDialect`";
      throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
    }
  }
}
