/** What a command prints with `--json`, judged by its schema in docs/json/. */
import { readdirSync, readFileSync } from "node:fs";
import { Ajv } from "ajv";

const folder = new URL("../../docs/json/", import.meta.url);
const ajv = new Ajv({ allErrors: true, allowUnionTypes: true, strictTypes: false });
for (const file of readdirSync(folder)) ajv.addSchema(closed(readFileSync(new URL(file, folder), "utf8")));

/**
 * Throws if the object does not follow the schema of the command, or has a field that the schema does not name.
 *
 * @param argv the arguments, which begin with the command
 */
export function expectSchema([command, ...rest]: readonly string[], report: object): void {
  const action = rest.includes("--task") ? "task" : rest[0];
  const names = "error" in report ? ["error"] : [`${command}-${action}`, command];
  const [validate] = names.flatMap((name) => ajv.getSchema(`${name}.schema.json`) ?? []);
  if (!validate!(report)) throw new Error(`${command}: ${ajv.errorsText(validate!.errors)}`);
}

/** The schema without room for fields that it does not name: a field that the types lack is a fault here. */
function closed(text: string): object {
  return JSON.parse(text, (_, value) =>
    value?.type === "object" && "properties" in value ? { additionalProperties: false, ...value } : value,
  );
}
