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
  {
    from: /^bin\/on-demand\.ts/,
    may: /^src\/(cli\/library|(convert|generate|survey|verify)\/\w+|hub\/(cache|download|upload))\.ts/,
  },
  { from: /^bin\//, may: /^(bin\/|src\/cli\/)/ },
  { from: /^src\/core\//, may: /^src\/core\// },
  { from: /^src\/io\//, may: /^src\/(core|io)\// },
  { from: /^kernels\/wasm\//, may: /^kernels\/wasm\// },
  { from: /^kernels\//, may: /^(src\/core\/(dtype|float|errors|built)\.ts|kernels\/)/ },
  { from: /^formats\/index\.ts/, may: /^formats\// },
  { from: /^formats\//, may: /^(src\/core\/|formats\/(define\.ts|codec\/))/ },
  { from: /^src\/families\//, may: /^(src\/(core|families)\/|kernels\/)/ },
  // from an address to a checkpoint: it knows formats and families, and nothing that is done with a checkpoint
  {
    from: /^src\/checkpoint\//,
    may: /^(src\/(core|io|checkpoint|families)\/|src\/(store|recast\/spelling)\.ts|formats\/)/,
  },
  {
    from: /^src\/cli\//,
    may: /^src\/((cli|report)\/|core\/(errors|events)\.ts|api\/\w+\.ts|version\.ts|index\.ts)/,
  },
  {
    from: /^src\/recast\//,
    may: /^(src\/(core|recast)\/|src\/api\/|src\/families\/(define|match)\.ts|kernels\/module\.ts)/,
  },
  {
    from: /^src\/lanes\//,
    may: /^(src\/(core|lanes)\/|src\/recast\/cast\.ts|formats\/define\.ts|kernels\/module\.ts)/,
  },
  { from: /^src\/report\//, may: /^src\/(report\/|core\/errors\.ts|api\/\w+\.ts|version\.ts)/ },
  { from: /^src\/verify\//, may: /^(src\/(?!cli\/|convert\/|survey\/)|formats\/|kernels\/)/ },
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
  it.each([
    "src/verify/controls.ts",
    "src/verify/dealing.ts",
    "src/verify/exchange.ts",
    "src/verify/sabotage.ts",
    "src/verify/lockstep.ts",
    "src/verify/products.ts",
    "src/verify/side.ts",
    "src/verify/stored.ts",
    "src/verify/streams.ts",
    "src/verify/weights.ts",
    "src/families/nemotron-h/forward.ts",
    "src/families/nemotron-h/native-hf.ts",
    "src/families/nemotron-h/native-megatron.ts",
  ])("%s", (file) => {
    for (const target of importsOf(file)) {
      expect(target).not.toMatch(
        /core\/(layout|moves|gather)\.ts|families\/(match|stored)\.ts|nemotron-h\/(hf|megatron|roles)/,
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
  const listed = (index: string) => importsOf(index).filter((path) => !path.endsWith("define.ts"));
  const beside = (folder: string, apart: RegExp) =>
    files.filter((file) => dirname(file) === folder && !apart.test(file));
  expect(listed("formats/index.ts").sort()).toEqual(beside("formats", /(define|index)\.ts$/).sort());
  expect(listed("kernels/index.ts").sort()).toEqual(
    beside("kernels", /(define|index|module|check|speed|\.d)\.ts$/).sort(),
  );
});
