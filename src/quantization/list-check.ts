/** Checks a list of modules before it is written: under the rule of every engine it must hit exactly the listed modules. */
import { IsologitError } from "../core/errors.ts";
import { MATCHING_RULES } from "./engines/matching.ts";

/**
 * @param method of the `quantization_config`
 * @param list   whole names of the modules that are not FP8
 * @param cast   whole names of the modules that are FP8, under each name by which a library knows them
 * @throws PLAN_IMPOSSIBLE if an engine would leave an FP8 module as it is
 */
export function refuseWrongHits(method: string, list: readonly string[], cast: readonly string[]): void {
  const all = cast.join("\n");
  for (const { engine, hits } of MATCHING_RULES.filter((rule) => rule.method === method)) {
    for (const entry of list) {
      // Almost no entry is a part of another module's name, and an entry without `.` in the place of `.` cannot hit one.
      if (!new RegExp(entry.replaceAll(/[^\w.]/g, "\\$&")).test(all)) continue;
      const [wrong] = hits(entry, cast);
      if (wrong === undefined) continue;
      const message = `${engine} would take ${wrong} for a module that is not FP8, because its list contains ${entry}`;
      const next = "use a recipe that treats both alike, or another `quantDialect`";
      throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
    }
  }
}
