/** docs/json/: the JSON Schema of what each command prints with `--json`, written from the types of the library. */
import { createGenerator, type Schema } from "ts-json-schema-generator";
import { jsonText } from "../../src/report/json.ts";

const root = new URL("../..", import.meta.url).pathname;

/** The type that each command prints, by the name of the schema; several where its flags decide. */
const REPORTS: Readonly<Record<string, string | readonly string[]>> = {
  "auth-whoami": "WhoamiReport",
  "cache-ls": "CacheReport",
  "cache-rm": "CacheRmReport",
  "cache-verify": "CacheVerifyReport",
  check: "CheckReport",
  convert: "ConvertReport",
  "convert-task": "TaskReport",
  diff: "DiffReport",
  "dispatch-k8s": "KubernetesReport",
  "dispatch-slurm": "SlurmReport",
  doctor: "DoctorReport",
  download: "DownloadReport",
  formats: "FormatsReport",
  generate: "GenerateReport",
  importance: "ImportanceReport",
  inspect: "InspectReport",
  logits: "LogitsReport",
  merge: "ConvertReport",
  "merge-task": "MergeTaskReport",
  plan: "PlanReport",
  prune: ["PruneReport", "ModelSizes"],
  recast: "ConvertReport",
  scan: "FindingsReport",
  upload: "UploadReport",
  verify: "VerifyReport",
};

/** The text of each schema by its name; `error` is the schema of what a command prints if it ends with an error, and `event` of a line of the file of `--events`. */
export function schemaTexts(): ReadonlyMap<string, string> {
  const generator = createGenerator({
    path: `${root}src/{index,report/subject}.ts`,
    tsconfig: `${root}tsconfig.json`,
    skipTypeCheck: true, // the build checks the types
    topRef: false,
    additionalProperties: true, // a later version may add fields
  });
  const ofType = (type: string) => generator.createSchema(type);
  const ofCommands = Object.entries(REPORTS).map(([name, type]): [string, string] => {
    const title = `What \`isologit ${name.replace("-", " ")} --json\` prints`;
    if (typeof type !== "string") return [name, schemaText(name, title, oneOf(type.map(ofType)))];
    const first = SCHEMA_NAMES.get(type)!;
    return [name, schemaText(name, title, first === name ? ofType(type) : { $ref: fileName(first) })];
  });
  const failure = generator.createSchema("Stopped").properties!.report as Schema;
  return new Map([
    ...ofCommands,
    ["event", schemaText("event", "A line of the file of `--events`", generator.createSchema("EventLine"))],
    ["error", schemaText("error", "What `--json` prints if a command ends with an error", failure)],
  ]);
}

/** A schema that each of several types follows. */
function oneOf(schemas: readonly Schema[]): Schema {
  const definitions = Object.assign({}, ...schemas.map((schema) => schema.definitions ?? {}));
  return { anyOf: schemas.map(({ $schema: _, definitions: __, ...schema }) => schema), definitions };
}

const fileName = (name: string): string => `${name}.schema.json`;

/** The first schema of each type. */
const SCHEMA_NAMES: ReadonlyMap<string, string> = new Map(
  Object.entries(REPORTS)
    .flatMap(([name, type]) => (typeof type === "string" ? [[type, name] as const] : []))
    .reverse(),
);

/** A definition that has a file of its own is a reference to that file, so that each type is in one file. */
function schemaText(name: string, title: string, schema: Schema): string {
  const { $schema: _, definitions = {}, ...top } = schema;
  const own = Object.entries(definitions).map(([type, definition]) => {
    const first = SCHEMA_NAMES.get(type);
    return [type, first === undefined ? definition : { $ref: fileName(first) }];
  });
  const used = usedDefinitions(top, Object.fromEntries(own));
  const $schema = "http://json-schema.org/draft-07/schema#";
  return jsonText({ $schema, $id: fileName(name), title, ...(admitNull({ ...top, ...used }) as object) });
}

/** The definitions that the schema refers to, directly or by way of another definition. */
function usedDefinitions(top: object, definitions: Readonly<Record<string, unknown>>): object {
  const used = new Map<string, unknown>();
  const waiting: unknown[] = [top];
  for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
    for (const [, name] of JSON.stringify(part).matchAll(/"#\/definitions\/([^"]+)"/g)) {
      if (used.has(name!)) continue;
      used.set(name!, definitions[name!]);
      waiting.push(definitions[name!]);
    }
  }
  return used.size === 0 ? {} : { definitions: Object.fromEntries([...used].sort()) };
}

/** Measured values, which can be NaN or infinite; JSON has null in their place. */
const MEASURED = /^(cosine|kl(Mean|P99)?|maxAbs|nll[AB]|normsRel|\w*[rR]elL2|worstError)$/;

/** The schema with null as a further value of each measured number. */
function admitNull(schema: unknown, name = ""): unknown {
  if (Array.isArray(schema)) return schema.map((part) => admitNull(part));
  if (typeof schema !== "object" || schema === null) return schema;
  const parts = Object.entries(schema).map(([key, part]) => [
    key,
    admitNull(part, key === "items" ? name : key),
  ]);
  const { type, ...rest } = Object.fromEntries(parts);
  if (type === undefined) return rest;
  return { type: type === "number" && MEASURED.test(name) ? ["number", "null"] : type, ...rest };
}
