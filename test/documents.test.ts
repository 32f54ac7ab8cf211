/** Documents: every link leads to a file and a heading, and every path in code marks exists. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, it } from "vitest";

const root = new URL("..", import.meta.url).pathname;
const textOf = (file: string) => readFileSync(join(root, file), "utf8");
const below = (folder: string, ending: RegExp) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => ending.test(file))
    .map((file) => `${folder}/${file}`);

const documents = ["README.md", "CHANGELOG.md", "fixtures/README.md", ...below("docs", /\.md$/)];
const sources = ["src", "formats", "kernels", "test", "bin"].flatMap((folder) => below(folder, /\.ts$/));

/** The text without its blocks of code, in which brackets are no links. */
const prose = (file: string) => textOf(file).replace(/^( *)```.*?^\1```/gms, "");

/** Names of the headings as GitHub makes them: a second heading of one text ends in -1. */
function anchorsOf(file: string): ReadonlySet<string> {
  const anchors = new Set<string>();
  for (const [, heading] of prose(file).matchAll(/^#+ (.*)$/gm)) {
    const plain = heading!.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase();
    const name = plain.replace(/[^\p{L}\p{N}\-_ ]/gu, "").replaceAll(" ", "-");
    let number = 0;
    while (anchors.has(number === 0 ? name : `${name}-${number}`)) number++;
    anchors.add(number === 0 ? name : `${name}-${number}`);
  }
  return anchors;
}

describe("links of documents", () => {
  it.each(documents)("%s", (file) => {
    for (const [, target] of prose(file).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      const [path, anchor] = target!.split("#") as [string, string | undefined];
      const found = path === "" ? file : relative(root, join(root, dirname(file), path));
      expect(existsSync(join(root, found)), `${file} links to ${target}`).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(found), `${file} links to ${target}`).toContain(anchor);
    }
  });
});

/** A path with a name in capitals, a star or braces stands for many. */
const isOnePath = (path: string) => !/[A-Z]{2,}(?!\.md)|[*{}<>]/.test(path.replace("README", ""));

describe("paths that documents name", () => {
  it.each(documents.filter((file) => file !== "CHANGELOG.md"))("%s", (file) => {
    for (const [, path] of textOf(file).matchAll(
      /`((?:src|formats|kernels|test|fixtures|docs|bin)\/[^`\s]*)`/g,
    )) {
      if (isOnePath(path!)) expect(existsSync(join(root, path!)), `${file} names ${path}`).toBe(true);
    }
  });
});

it("documents that sources name exist", () => {
  for (const file of sources) {
    for (const [page] of textOf(file).matchAll(/\bdocs\/[\w-]+\.md/g)) {
      expect(existsSync(join(root, page)), `${file} names ${page}`).toBe(true);
    }
  }
});

it("types that the glossary names exist", () => {
  const declared = new Set<string>();
  for (const file of sources) {
    for (const [, name] of textOf(file).matchAll(/^export (?:interface|type|class) (\w+)/gm))
      declared.add(name!);
  }
  for (const [, name] of textOf("docs/glossary.md").matchAll(/\(`([A-Z]\w+)`\)/g))
    expect(declared).toContain(name);
});
