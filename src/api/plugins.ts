/** Loads plug-ins by name. Their code runs at once, so only names that the user gave may come here. */
import { stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { IsologitError, systemError, withLocation } from "../core/errors.ts";
import type { Plugin } from "../plugins/plugin.ts";
import { kernelsOf } from "../plugins/registry.ts";

/** A path begins with a dot or a slash, or is a module file; all other names are packages. */
const PATH = /^(\.{0,2}[\\/]|[A-Za-z]:[\\/])|\.[cm]?[jt]s$/;

/**
 * Imports modules and returns their plug-ins: the export `plugin`, or the default export.
 *
 * @param names paths of modules, and names of packages; both as seen from the current folder
 * @returns     for the option `plugins` of the other functions, in the same order
 * @throws NOT_FOUND: there is no such module; PLUGIN_INVALID: it fails when it is loaded, exports no plug-in, or has an id
 *   that exists already. Each error names the file
 * @example
 * const plugins = await loadPlugins(["./my-family.js"]);
 */
export async function loadPlugins(names: readonly string[]): Promise<readonly Plugin[]> {
  const plugins: Plugin[] = [];
  for (const name of names) {
    const file = fileOf(name);
    const module = await importModule(file);
    const plugin = module.plugin ?? module.default;
    if (plugin === undefined) {
      const exported = Object.keys(module).join(", ") || "nothing";
      throw new IsologitError(
        "PLUGIN_INVALID",
        `it exports ${exported}, expected \`plugin\` or \`default\``,
        {
          file,
        },
      );
    }
    plugins.push(plugin as Plugin); // `kernelsOf` checks it
    try {
      await kernelsOf({ plugins });
    } catch (error) {
      throw withLocation(error, { file });
    }
  }
  return plugins;
}

/** @throws NOT_FOUND for a package that is not installed here */
function fileOf(name: string): string {
  if (PATH.test(name)) return resolve(name);
  try {
    return createRequire(resolve("any.js")).resolve(name);
  } catch (cause) {
    const isAbsent = cause instanceof Error && "code" in cause && cause.code === "MODULE_NOT_FOUND";
    const message = isAbsent
      ? "no such package is installed here"
      : `the package is not found: ${String(cause)}`;
    const next = "install the package in this folder, or give the path of its module: ./name.js";
    throw new IsologitError("NOT_FOUND", message, { file: name }, { cause, next });
  }
}

async function importModule(file: string): Promise<Readonly<Record<string, unknown>>> {
  const at = { file };
  await stat(file).catch((error: unknown) => {
    throw systemError(error, at);
  });
  try {
    return await import(pathToFileURL(file).href);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    const next = `run \`node ${file}\` to see the whole error`;
    throw new IsologitError("PLUGIN_INVALID", `it cannot be loaded: ${message}`, at, { cause, next });
  }
}
