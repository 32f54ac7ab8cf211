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

type Helps = (typeof commands)[number]["helps"];

/** What a command reads in place of a flag's own value. */
const ownFlag = (name: FlagName, helps: Helps): Flag => ({ ...FLAGS[name], ...helps?.[name] });

/** The values of a flag in each command that reads it in its own way. */
function sharedSchema(name: FlagName): Schema {
  const own = commands.filter(
    ({ flags, helps }) => flags.includes(name) && helps?.[name]?.read !== undefined,
  );
  const forms = [FLAGS[name], ...own.map(({ helps }) => ownFlag(name, helps))].map(valueSchema);
  const different = [...new Map(forms.map((form) => [JSON.stringify(form), form])).values()];
  return different.length === 1 ? different[0]! : { anyOf: different };
}

/** @param helps absent: flags of every command that has them */
function section(names: readonly FlagName[], helps?: Helps): Readonly<Record<string, Schema>> {
  const allowed = names.filter((name) => !ONLY_ON_COMMAND_LINE.includes(name));
  return Object.fromEntries(
    allowed.map((name) => {
      const flag = ownFlag(name, helps);
      const value = helps === undefined ? sharedSchema(name) : valueSchema(flag);
      return [longName(FLAGS[name]).slice(2), { description: helpText(flag), ...value }];
    }),
  );
}

export function configSchema(): Schema {
  const shared = section(FLAG_NAMES);
  const ofCommands = commands.map(({ name, summary, flags, helps = {} }) => {
    const own = {
      description: `flags of ${name}: ${summary}`,
      type: "object",
      properties: section(flags, helps),
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
