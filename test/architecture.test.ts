/** Holds the rules of docs/architecture.md: who imports whom, no circles, sizes of folders, one meaning for a name. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, it } from "vitest";

const root = new URL("..", import.meta.url).pathname;
const listed = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((file) => `${folder}/${file}`);
const code = ["bin", "src", "formats", "kernels"]
  .flatMap(listed)
  .filter((file) => /(?<!\.d)\.ts$/.test(file));
/** AssemblyScript is another language: its files import each other by other names. */
const files = code.filter((file) => !file.startsWith("kernels/wasm/"));
const texts = new Map(code.map((file) => [file, readFileSync(join(root, file), "utf8")]));

function importsOf(file: string): string[] {
  const paths = [...texts.get(file)!.matchAll(/(?:from |import\()"(\.[^"]+)"/g)].map((match) => match[1]!);
  return [...new Set(paths.map((path) => normalize(join(dirname(file), path))))];
}
const imports = new Map(files.map((file) => [file, importsOf(file)]));

/** `src/verify/bytes/scales.ts` is `verify/bytes/scales`, in the room `verify`. */
const shortName = (file: string) => file.replace(/^src\//, "").replace(/\.ts$/, "");
const roomOf = (file: string) => shortName(file).split("/")[0]!;

function blockOf(kind: string): string {
  const page = readFileSync(join(root, "docs/architecture.md"), "utf8");
  return new RegExp(`\`\`\`text ${kind}\n([\\s\\S]*?)\`\`\``).exec(page)![1]!;
}

/** `core/{dtype,float}` names two files. */
function pathsOf(entry: string): readonly string[] {
  const [, folder, names] = /^(.*)\/\{(.*)\}$/.exec(entry) ?? [];
  return names === undefined ? [entry] : names.split(",").map((name) => `${folder}/${name}`);
}

const allowed = new Map(
  blockOf("imports")
    .trim()
    .split("\n")
    .map((line) => {
      const [room, ...entries] = line.split(/\s+/);
      return [room!, entries.flatMap(pathsOf)];
    }),
);

const lies = (name: string, entry: string) => name === entry || name.startsWith(`${entry}/`);

/** The row of the table that holds for a file: the longest one that it lies in. */
const rowOf = (file: string) =>
  [...allowed.keys()].filter((row) => lies(shortName(file), row)).sort((a, b) => b.length - a.length)[0] ??
  roomOf(file);

describe("a room imports only what the table allows", () => {
  it.each(files)("%s", (file) => {
    const row = rowOf(file);
    for (const path of importsOf(file)) {
      const isAllowed = [row, ...allowed.get(row)!].some((entry) => lies(shortName(path), entry));
      expect(isAllowed, `${file} imports ${path}`).toBe(true);
    }
  });

  it("and the table has each room", () => {
    expect([...allowed.keys()].sort()).toEqual([...new Set(files.map(rowOf))].sort());
  });

  it("and needs each of its entries", () => {
    const needless = [...allowed].flatMap(([room, entries]) =>
      entries
        .filter((entry) => entry !== "-")
        .filter((entry) => {
          const targets = files.filter((file) => rowOf(file) === room).flatMap((file) => imports.get(file)!);
          return !targets.some((path) => lies(shortName(path), entry));
        })
        .map((entry) => `${room}: ${entry}`),
    );
    expect(needless).toEqual([]);
  });
});

/** A check must not pass through what it checks: no mapping between a native run and its own tensors. */
describe("code that runs a model knows no mapping", () => {
  const NATIVE =
    /^(inference\/|verify\/(lockstep[\w-]*$|controls\/|pairs\/)|pruning\/(masked-run|cut-lockstep|cut-controls)$|families\/.*\/(native|masks|forward)$)/;
  const never = blockOf("never").trim().split(/\s+/);
  const native = files.filter((file) => NATIVE.test(shortName(file)));
  it.each(native)("%s", (file) => {
    for (const path of importsOf(file).map(shortName)) {
      const forbidden = never.find((entry) =>
        entry.includes("/")
          ? lies(path, entry)
          : path.startsWith("families/") && path.split("/").at(-1) === entry,
      );
      expect(forbidden, `${file} imports ${path}`).toBeUndefined();
    }
  });
});

/** The parts of a graph in which each node reaches each other one: more than one node is a circle. */
function circlesOf(graph: ReadonlyMap<string, readonly string[]>): readonly string[][] {
  const reach = new Map<string, Set<string>>();
  for (const start of graph.keys()) {
    const seen = new Set<string>();
    const open = [...(graph.get(start) ?? [])];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (seen.has(node)) continue;
      seen.add(node);
      open.push(...(graph.get(node) ?? []));
    }
    reach.set(start, seen);
  }
  return [...graph.keys()]
    .filter((node) => reach.get(node)!.has(node))
    .map((node) =>
      [...graph.keys()].filter((other) => reach.get(node)!.has(other) && reach.get(other)?.has(node)),
    );
}

describe("there is no circle", () => {
  it("of files", () => expect(circlesOf(imports)).toEqual([]));

  it("of folders", () => {
    const folders = new Set(files.map((file) => dirname(file)));
    const isLeaf = (folder: string) => ![...folders].some((other) => other.startsWith(`${folder}/`));
    // the files of a folder that has folders stand for themselves: they may lie above and below these
    const nodeOf = (file: string) => (isLeaf(dirname(file)) ? dirname(file) : file);
    const graph = new Map<string, string[]>();
    const add = (from: string, to: string) => {
      if (from !== to) graph.set(from, [...(graph.get(from) ?? []), to]);
    };
    for (const [file, paths] of imports) for (const path of paths) add(nodeOf(file), nodeOf(path));
    expect(circlesOf(graph)).toEqual([]);
    const rooms = new Map<string, string[]>();
    for (const [file, paths] of imports) {
      const others = paths.map(roomOf).filter((room) => room !== roomOf(file));
      rooms.set(roomOf(file), [...(rooms.get(roomOf(file)) ?? []), ...others]);
    }
    expect(circlesOf(rooms)).toEqual([]);
  });
});

it("no folder has more than 20 files or 3,000 lines", () => {
  const sizes = new Map<string, { files: number; lines: number }>();
  for (const [file, text] of texts) {
    const { files, lines } = sizes.get(dirname(file)) ?? { files: 0, lines: 0 };
    sizes.set(dirname(file), { files: files + 1, lines: lines + text.split("\n").length - 1 });
  }
  const large = [...sizes].filter(([, { files, lines }]) => files > 20 || lines > 3000);
  expect(large).toEqual([]);
});

const EXPORT =
  /^export (?:declare )?(?:abstract )?(?:async )?(interface|type|class|function\*?|const) (\w+)/gm;
const exported = files.flatMap((file) =>
  [...texts.get(file)!.matchAll(EXPORT)].map(([, kind, name]) => ({ file, kind: kind!, name: name! })),
);

it("an exported type name has one meaning", () => {
  const meanings = new Map<string, Set<string>>();
  for (const { file, kind, name } of exported) {
    if (!/interface|type|class/.test(kind)) continue;
    meanings.set(name, (meanings.get(name) ?? new Set()).add(file));
  }
  const ambiguous = [...meanings]
    .filter(([, where]) => where.size > 1)
    .map(([name, where]) => [name, ...where]);
  expect(ambiguous).toEqual([]);
});

it("no exported function is named by a bare participle", () => {
  const PARTICIPLE =
    /^([a-z]+ed|told|said|kept|spelt|found|held|seen|given|met|drawn|written|known|made|read)$/;
  const isFunction = ({ file, kind, name }: (typeof exported)[number]) =>
    kind.startsWith("function") ||
    new RegExp(`^export const ${name}\\b[^=\n]*= (async )?(<|\\()`, "m").test(texts.get(file)!);
  const names = exported.filter((found) => PARTICIPLE.test(found.name) && isFunction(found));
  expect(names).toEqual([]);
});

it("nothing is exported that no other file uses", () => {
  const others = ["test", "fixtures/generate"].flatMap(listed).filter((file) => file.endsWith(".ts"));
  const all = new Map([
    ...texts,
    ...others.map((file) => [file, readFileSync(join(root, file), "utf8")] as const),
  ]);
  const users = new Map<string, Set<string>>();
  for (const [file, text] of all) {
    for (const [word] of text.matchAll(/\w+/g)) users.set(word, (users.get(word) ?? new Set()).add(file));
  }
  const needless = exported.filter(({ file, name }) => {
    // the types of what the library returns are part of it, by whatever name they are used
    if (file.startsWith("src/api/") || file === "src/index.ts") return false;
    return ![...users.get(name)!].some((user) => user !== file);
  });
  expect(needless.map(({ file, name }) => `${file}: ${name}`)).toEqual([]);
});

it("only the command line prints", () => {
  const printing = files.filter((file) => {
    if (/^(src\/cli|bin)\//.test(file)) return false;
    return /console\.|process\.std(out|err)/.test(texts.get(file)!);
  });
  expect(printing).toEqual([]);
});

it("every format and every kernel is in its list", () => {
  const named = (index: string, kind: RegExp) => importsOf(index).filter((path) => kind.test(path));
  const formatFiles = files.filter((file) => /^formats\/[\w-]+\/format\.ts$/.test(file));
  expect(named("formats/index.ts", /\/[\w-]+\/format\.ts$/).sort()).toEqual(formatFiles.sort());
  const definitions = files.filter((file) => file.startsWith("kernels/definitions/"));
  expect(named("kernels/index.ts", /\/definitions\//).sort()).toEqual(definitions.sort());
});
