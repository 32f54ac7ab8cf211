/** docs/api.md, written from the docstrings of src/api/ and from the types that src/index.ts exports. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = new URL("../..", import.meta.url).pathname;
const textOf = (file: string) => readFileSync(join(root, file), "utf8");

export function apiPage(): string {
  const [functions, types] = [publicFunctions(), publicTypes()];
  return [
    INTRODUCTION,
    "## Functions",
    ...functions.flatMap(functionSection),
    "## Options and results",
    "Each declaration is shown as it is in the source. An option that is absent has its default.",
    ...types.flatMap(({ name, docstring, text }) => [`### ${name}`, code(`${docstring}\n${text}`.trim())]),
  ]
    .join("\n\n")
    .concat("\n");
}

const INTRODUCTION = `# The library

\`\`\`ts
import { convert, verify } from "isologit";

const report = await convert("./nemotron-h-8b", "model.isologit", { watch: console.error });
if (report.verification?.verdict !== "same") process.exitCode = 1;
\`\`\`

Each command of the command line is a function with the same name. It takes the arguments and options of the command and returns the object that
\`--json\` prints. It throws an \`IsologitError\` with a \`code\`, the place (\`at\`) and the next step. [cli.md](cli.md#error-codes) lists the codes.
The types need \`npm install --save-dev @types/node\`. They compile with TypeScript 5.9 and 7 under \`--strict\`, without \`skipLibCheck\`.

This page is written from the docstrings in \`src/api/\` and from the types that \`src/index.ts\` exports, and a test compares it with them.`;

interface Declaration {
  readonly name: string;
  /** "" if the declaration has none */
  readonly docstring: string;
  readonly text: string;
}

/** Declarations of a file that start with `start` and end with the first line that matches `end`. */
function declarationsIn(file: string, start: RegExp, end: RegExp): readonly Declaration[] {
  const lines = textOf(file).split("\n");
  return lines.flatMap((line, first) => {
    const [, name] = start.exec(line) ?? [];
    if (name === undefined) return [];
    const last = lines.findIndex((candidate, at) => at >= first && end.test(candidate));
    const isDescribed = lines[first - 1]?.endsWith("*/") === true;
    const from = isDescribed
      ? lines.findLastIndex((candidate, at) => at < first && candidate.startsWith("/**"))
      : first;
    const docstring = lines.slice(from, first).join("\n");
    return [{ name, docstring, text: lines.slice(first, last + 1).join("\n") }];
  });
}

/** Each exported function, in the order of src/index.ts; of overloads, each one that has a docstring. */
function publicFunctions(): readonly Declaration[] {
  const index = exportedNames();
  const [start, end] = [/^export (?:async )?function (\w+)/, /^(export .*)?\): .*( \{|;)$/];
  return below("src/api")
    .flatMap((file) => declarationsIn(file, start, end))
    .filter(({ name, docstring }) => index.includes(name) && docstring !== "")
    .map(({ name, docstring, text }) => ({
      name,
      docstring: docstring
        .replace(/^\/\*\*|\*\/$/g, "")
        .replace(/^ *\* ?/gm, "")
        .trim(),
      text: text.replace(/^export (async )?/, "").replace(/( \{|;)$/, ""),
    }))
    .sort((a, b) => index.indexOf(a.name) - index.indexOf(b.name));
}

/** Options and results that src/index.ts exports, and the types that they extend, by name. */
function publicTypes(): readonly Declaration[] {
  const declared = below("src").flatMap((file) => [
    ...declarationsIn(file, /^export interface (\w+)/, /^\}|\{\}$/),
    ...declarationsIn(file, /^export type (\w+)/, /;$/),
  ]);
  const types = new Map(declared.map((declaration) => [declaration.name, declaration]));
  const names = new Set(exportedNames().filter((name) => /(Options|Report|Metrics)$/.test(name)));
  for (const name of names) {
    const [, bases = ""] = /\bextends\s+([^{]*)\{/.exec(types.get(name)!.text) ?? [];
    for (const base of bases.match(/\w+/g) ?? []) if (types.has(base)) names.add(base);
  }
  return [...names].sort().map((name) => types.get(name)!);
}

const exportedNames = (): readonly string[] =>
  [...textOf("src/index.ts").matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, list]) =>
    list!
      .split(",")
      .map((name) => name.replace(/\btype\b/, "").trim())
      .filter((name) => name !== ""),
  );

function below(folder: string): readonly string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .sort()
    .map((file) => `${folder}/${file}`);
}

/** A function: its meaning, its signature, a list of parameters, result and errors, and an example. */
function functionSection({ name, docstring, text }: Declaration): readonly string[] {
  const [meaning, ...tags] = docstring.split(/^@/m);
  const sentences = tags.map((tag) => {
    const [, kind, rest] = /^(\w+)\s*([\s\S]*)$/.exec(tag)!;
    return { kind: kind!, rest: rest!.trim() };
  });
  const lines = sentences.flatMap(({ kind, rest }) => {
    const line = rest.replace(/\s+/g, " ");
    if (kind === "param") return [line.replace(/^(\S+) (?:- )?/, "- `$1`: ")];
    if (kind === "returns") return [`- Result: ${line}`];
    return kind === "throws" ? [`- Errors: ${line}`] : [];
  });
  const examples = sentences.filter(({ kind }) => kind === "example").map(({ rest }) => code(rest));
  return [`### ${name}`, meaning!.trim(), code(text), lines.join("\n"), ...examples];
}

const code = (text: string) => `\`\`\`ts\n${text}\n\`\`\``;
