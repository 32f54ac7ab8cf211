/** docs/isologit.schema.json, written from the tables of commands and flags. */
import { loadCommands } from "../../src/cli/commands/index.ts";
import { type Flag, helpText, longName } from "../../src/cli/flag.ts";
import { FLAG_NAMES, FLAGS, type FlagName } from "../../src/cli/options.ts";
import { ONLY_ON_COMMAND_LINE } from "../../src/cli/settings/config-file.ts";

const commands = await loadCommands();

type Schema = Readonly<Record<string, unknown>>;

function valueSchema({ read, bare, repeatable, choices }: Flag): Schema {
  if (read === undefined) return { type: "boolean" };
  const one =
    choices !== undefined && repeatable !== true ? { enum: choices } : { type: ["string", "number"] };
  const forms = [
    one,
    ...(bare ? [{ const: true }] : []),
    ...(repeatable ? [{ type: "array", items: one }] : []),
  ];
  return forms.length === 1 ? one : { anyOf: forms };
}

function section(names: readonly FlagName[]): Readonly<Record<string, Schema>> {
  const allowed = names.filter((name) => !ONLY_ON_COMMAND_LINE.includes(name));
  return Object.fromEntries(
    allowed.map((name) => {
      const flag: Flag = FLAGS[name];
      return [longName(flag).slice(2), { description: helpText(flag), ...valueSchema(flag) }];
    }),
  );
}

export function configSchema(): Schema {
  const shared = section(FLAG_NAMES);
  const ofCommands = commands.map(({ name, summary, flags }) => {
    const own = {
      description: `flags of ${name}: ${summary}`,
      type: "object",
      properties: section(flags),
      additionalProperties: false,
    };
    return [name, name in shared ? { anyOf: [shared[name], own] } : own];
  });
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Flags of isologit, for isologit.yaml",
    type: "object",
    properties: { ...shared, ...Object.fromEntries(ofCommands) },
    additionalProperties: false,
  };
}
