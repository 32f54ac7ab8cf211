/** The package as it is published, installed in an empty project, with the example plug-in beside it. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";

const root = new URL("../..", import.meta.url).pathname;

/** Errors of the compiler, "" if there are none. */
export function tsc(folder: string, ...args: readonly string[]): string {
  const program = join(root, "node_modules/typescript/lib/tsc.js");
  return spawnSync(process.execPath, [program, ...args], { cwd: folder, encoding: "utf8" }).stdout;
}

/** Runs a program of an installed package in the project; its output has no colours. */
export function runIn(project: string, program: string, ...args: readonly string[]) {
  const path = join(project, "node_modules", program);
  const { FORCE_COLOR: _, ...env } = process.env;
  return spawnSync(process.execPath, [path, ...args], {
    ...{ cwd: project, encoding: "utf8" },
    env: { ...env, NO_COLOR: "1" },
  });
}

/**
 * Installs the package, its dependencies, `@types/node` and vitest in an empty project.
 *
 * @returns path of the tarball
 */
export function installPackage(project: string): string {
  const { dependencies, scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const packed = join(project, "packed");
  for (const path of ["package.json", "package", "docs", "README.md", "LICENSE"])
    cpSync(join(root, path), join(packed, path), { recursive: true });
  for (const path of ["bin", "src", "formats", "kernels"])
    cpSync(join(root, "dist", path), join(packed, "dist", path), { recursive: true });
  expect(tsc(root, "-p", "tsconfig.types.json", "--outDir", join(packed, "dist"))).toBe("");
  const [, steps] = /(node package\/declarations.js .*)$/.exec(scripts.prepack)!;
  symlinkSync(join(root, "node_modules"), join(packed, "node_modules"));
  execFileSync("bash", ["-c", steps!], { cwd: packed, stdio: "pipe" });
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", project];
  const [{ filename }] = JSON.parse(execFileSync("npm", pack, { cwd: packed, encoding: "utf8" }));
  const tarball = join(project, filename);
  const installed = join(project, "node_modules/isologit");
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["xzf", tarball, "--strip-components=1", "-C", installed]);
  for (const name of [...Object.keys(dependencies), "@types/node", "vitest"]) {
    const link = join(project, "node_modules", name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, "node_modules", name), link);
  }
  writeFileSync(join(project, "package.json"), '{"type": "module"}');
  cpSync(join(root, "fixtures/plugin"), project, { recursive: true });
  return tarball;
}
