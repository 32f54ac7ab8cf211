/** The package as `npm pack` makes it: its declarations in a project that uses them, and its documents. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import picomatch from "picomatch";
import { beforeAll, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";

const root = new URL("../..", import.meta.url).pathname;
const work = workFolder();
const installed = join(work, "node_modules/isologit");
const {
  dependencies,
  files,
  exports: entries,
} = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

/** Errors of the compiler, "" if there are none. */
function tsc(folder: string, ...args: readonly string[]): string {
  const program = join(root, "node_modules/typescript/lib/tsc.js");
  return spawnSync(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8" }).stdout;
}

/** An empty project in which the declarations of the package, its dependencies and `@types/node` are installed. */
beforeAll(() => {
  for (const path of ["package.json", "package"])
    cpSync(join(root, path), join(installed, path), { recursive: true });
  expect(tsc(root, "-p", "tsconfig.types.json", "--outDir", join(installed, "dist"))).toBe("");
  execFileSync(process.execPath, ["package/declarations.js"], { cwd: installed });
  for (const path of readFileSync(join(installed, "dist/.npmignore"), "utf8").trim().split("\n"))
    rmSync(join(installed, "dist", path));
  for (const name of [...Object.keys(dependencies), "@types/node"]) {
    const link = join(work, "node_modules", name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, "node_modules", name), link);
  }
  writeFileSync(join(work, "package.json"), '{"type": "module"}');
  const names = Object.keys(entries).map((path) => path.replace(".", "isologit"));
  const imports = names.map((name, i) => `import * as part${i} from "${name}";\nconsole.log(part${i});\n`);
  writeFileSync(join(work, "use.ts"), imports.join(""));
  cpSync(join(root, "fixtures/plugin"), join(work, "plugin"), { recursive: true });
});

it.each([
  ["nodenext", "nodenext"],
  ["bundler", "esnext"],
])("compile under --strict by %s, without skipLibCheck", (moduleResolution, module) => {
  const flags = ["--strict", "--noEmit", "--target", "es2022", "--module", module];
  expect(tsc(work, ...flags, "--moduleResolution", moduleResolution, "use.ts")).toBe("");
  expect(tsc(work, ...flags, "--checkJs", "--moduleResolution", moduleResolution, "plugin/plugin.js")).toBe(
    "",
  );
});

it("holds the documents that messages name", () => {
  const sources = ["bin", "src", "formats", "kernels"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) =>
      join(root, folder, path),
    ),
  );
  const texts = sources.filter((path) => path.endsWith(".ts")).map((path) => readFileSync(path, "utf8"));
  const code = texts.join("\n").replace(/^\s*(\/\/|\/?\*).*$/gm, ""); // without comments
  const named = new Set(code.match(/\bdocs\/[\w-]+\.\w+/g));
  expect(named.size).toBeGreaterThan(0);
  expect([...named].filter((path) => !picomatch(files)(path))).toEqual([]);
});
