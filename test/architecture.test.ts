import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, it } from "vitest";

const root = new URL("..", import.meta.url).pathname;
const files = ["bin", "src", "formats", "kernels"]
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((file) => `${folder}/${file}`),
  )
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"));

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8");
  const relative = [...text.matchAll(/(?:from |import\()"(\.[^"]+)"/g)].map((match) => match[1]!);
  return relative.map((path) => normalize(join(dirname(file), path)));
}

/** Who may import whom: the first line whose `from` matches a file rules it. */
const LINES: readonly { from: RegExp; may: RegExp }[] = [
  { from: /^bin\/on-demand\.ts/, may: /^src\/(cli\/library|index|api\/\w+)\.ts/ },
  { from: /^bin\//, may: /^(bin\/|src\/cli\/)/ },
  { from: /^src\/core\//, may: /^src\/core\// },
  { from: /^src\/io\//, may: /^src\/(core|io)\// },
  { from: /^kernels\/wasm\//, may: /^kernels\/wasm\// },
  {
    from: /^kernels\/definitions\//,
    may: /^(src\/core\/(dtype|float)\.ts|kernels\/(definitions\/|kernel\.ts))/,
  },
  {
    from: /^kernels\/wgsl\//,
    may: /^(src\/core\/dtype\.ts|kernels\/(definitions\/|wgsl\/|kernel\.ts))/,
  },
  { from: /^kernels\//, may: /^(src\/core\/(dtype|float|errors|built-file|random)\.ts|kernels\/)/ },
  { from: /^formats\//, may: /^(src\/core\/|formats\/)/ },
  { from: /^src\/families\//, may: /^(src\/(core|families)\/|kernels\/)/ },
  {
    from: /^src\/cli\//,
    may: /^src\/((cli|report)\/|core\/(dtype|errors|events|figures)\.ts|version\.ts|index\.ts)/,
  },
  { from: /^src\/report\//, may: /^src\/(report\/|core\/(errors|figures)\.ts|version\.ts|index\.ts)/ },
  { from: /^src\//, may: /^(src\/(?!cli\/)|formats\/|kernels\/)/ },
];

describe("imports keep to the lines of the house", () => {
  it.each(files)("%s", (file) => {
    const line = LINES.find(({ from }) => from.test(file))!;
    for (const target of importsOf(file)) expect(target, `${file} imports ${target}`).toMatch(line.may);
  });
});

/** A check must not pass through what it checks: no mapping between a native run and its own tensors. */
describe("native execution knows no mapping", () => {
  const native = files.filter((file) =>
    /^src\/(inference\/|verify\/(lockstep\.ts|controls\/)|families\/.*\/(native|forward)\.ts)/.test(file),
  );
  it.each(native.filter((file) => !/(layers|model-runner)\.ts$/.test(file)))("%s", (file) => {
    for (const target of importsOf(file)) {
      expect(target).not.toMatch(
        /core\/mapping\/|families\/(match|expand)\.ts|nemotron-h\/(roles|.*\/(rules|dialect))/,
      );
    }
  });
});

it("only the command line prints", () => {
  const printing = files.filter((file) => {
    if (/^(src\/cli|bin)\//.test(file)) return false;
    return /console\.|process\.std(out|err)/.test(readFileSync(join(root, file), "utf8"));
  });
  expect(printing).toEqual([]);
});

it("every format and every kernel is in its list", () => {
  const listed = (index: string, kind: RegExp) => importsOf(index).filter((path) => kind.test(path));
  const formatFiles = files.filter((file) => /^formats\/[\w-]+\/format\.ts$/.test(file));
  expect(listed("formats/index.ts", /\/[\w-]+\/format\.ts$/).sort()).toEqual(formatFiles.sort());
  const definitions = files.filter((file) => file.startsWith("kernels/definitions/"));
  expect(listed("kernels/index.ts", /\/definitions\//).sort()).toEqual(definitions.sort());
});
