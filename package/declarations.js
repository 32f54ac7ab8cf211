// Before `npm pack`: keeps the declarations that the entries of package.json reach by name, and removes all others from the
// files in dist/. Files with nothing left are listed in dist/.npmignore.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const dist = new URL("../dist/", import.meta.url);
const textOf = (url) => readFileSync(fileURLToPath(url), "utf8");
const { exports: entries } = JSON.parse(textOf(new URL("../package.json", import.meta.url)));

const DECLARED =
  /^(?:export )?(?:declare )?(?:abstract )?(?:const|function|class|interface|type|enum) (\w+)/m;
const LINK = /^(import|export)(?: type)? (?:\{(.*)\}|(\*)) from "(\.[^"]+)";/m;

const declarationsAt = (path, from) => new URL(path.replace(/\.[jt]s$/, ".d.ts"), from).href;

/** The statements of a file, each with the comment before it. `links` are names of other files, by their names here. */
function statementsOf(url) {
  const chunks = [];
  let isAfterComment = false; // the line before is the end of a comment outside of all statements
  for (const line of textOf(url).split("\n")) {
    const isStart = /^(\/\*\*|\/\/\/|(import|export|declare|interface|type|class|const) )/.test(line);
    if (chunks.length === 0 || (isStart && !isAfterComment)) chunks.push([]);
    chunks.at(-1).push(line);
    isAfterComment = /^(\/\*\*| \*\/)/.test(line) && line.endsWith("*/");
  }
  return chunks.map((lines) => {
    const text = lines.join("\n");
    const [, kind, names, star, path] = LINK.exec(text) ?? [];
    if (kind === undefined) return { text, name: DECLARED.exec(text)?.[1], links: [] };
    const file = declarationsAt(path, url);
    const parts = star === undefined ? names.split(",").filter((part) => part.trim() !== "") : [];
    const links = parts.map((part) => {
      const [there, here = there] = part
        .trim()
        .replace(/^type /, "")
        .split(" as ");
      return { here, there, file, part: part.trim() };
    });
    return { text, kind, links, ...(star !== undefined && { all: file }) };
  });
}

const files = new Map();
const fileOf = (url) => {
  if (!files.has(url)) files.set(url, { statements: statementsOf(url), kept: new Set(), links: new Set() });
  return files.get(url);
};

/** Keeps what declares `name` in a file, and all that its text names. */
function keep(url, name) {
  const { statements, kept, links } = fileOf(url);
  for (const statement of statements) {
    if (statement.name === name && !kept.has(statement)) keepStatement(url, statement);
    for (const link of statement.links) {
      if (link.here !== name || links.has(link)) continue;
      links.add(link);
      keep(link.file, link.there);
    }
  }
}

function keepStatement(url, statement) {
  fileOf(url).kept.add(statement);
  const code = statement.text.replace(/\/\*[\s\S]*?\*\//g, "");
  for (const word of new Set(code.match(/\w+/g))) keep(url, word);
  for (const [, path, name] of code.matchAll(/import\("(\.[^"]+)"\)\.(\w+)/g))
    keep(declarationsAt(path, url), name);
}

/** Keeps all that a file exports. */
function keepExports(url) {
  for (const statement of fileOf(url).statements) {
    if (statement.all !== undefined) keepExports(statement.all);
    if (statement.kind === "export") for (const { here } of statement.links) keep(url, here);
    else if (/^export /m.test(statement.text)) keepStatement(url, statement);
  }
}

for (const { types } of Object.values(entries)) keepExports(new URL(`../${types}`, import.meta.url).href);

const ignored = [];
for (const path of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
  if (!path.endsWith(".d.ts")) continue;
  const url = new URL(path.replaceAll("\\", "/"), dist).href;
  const { statements, kept, links } = fileOf(url);
  const lines = statements.flatMap((statement) => {
    const { text, links: own, all } = statement;
    if (kept.has(statement) || all !== undefined || text.startsWith("///")) return [text];
    const parts = own.filter((link) => links.has(link)).map(({ part }) => part);
    return parts.length === 0 ? [] : [text.replace(/\{.*\}/, `{ ${parts.join(", ")} }`)];
  });
  if (kept.size + links.size === 0 && !lines.some((text) => text.startsWith("export *")))
    ignored.push(`/${path}\n`);
  else writeFileSync(fileURLToPath(url), `${lines.join("\n")}\nexport {};\n`);
}
writeFileSync(new URL(".npmignore", dist), ignored.join("").replaceAll("\\", "/"));
