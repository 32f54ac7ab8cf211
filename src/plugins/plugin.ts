/** What a plug-in may bring: formats, families, kernels and quantization dialects from outside this program. */
import type { Format } from "../../formats/format.ts";
import type { ScriptKernel } from "../../kernels/kernel.ts";
import type { Family } from "../families/family.ts";
import type { QuantizationDialect } from "./quantization-dialect.ts";

/**
 * Parts that join those of this version for one run. A module gives its plug-in as `export const plugin`, or as the default
 * export. A plug-in is code: it runs with all rights of the process.
 */
export interface Plugin {
  /** for reports and certificates: letters, digits and `@ / . _ -`, at most 64, such as the name of its package */
  readonly name: string;
  /** likewise */
  readonly version?: string;
  readonly formats?: readonly Format[];
  readonly families?: readonly Family[];
  /** those that the families use; `doctor` tests them */
  readonly kernels?: readonly ScriptKernel[];
  readonly quantizationDialects?: readonly QuantizationDialect[];
}

/** Names and versions as reports and certificates hold them, `mamba2 1.0.0`. */
export interface PluginsReport {
  /** the plug-ins that were loaded; absent without any */
  readonly plugins?: readonly string[];
}

/** A name or a version: certificates hold them, and people paste what certificates hold. */
export const PLUGIN_WORD = /^[\w@/.-]{1,64}$/;

/** An entry of `PluginsReport`. */
export const PLUGIN_TEXT = /^[\w@/.-]{1,64}( [\w@/.-]{1,64})?$/;

export interface PluginOptions {
  /** parts from outside that this call knows besides those of this version */
  readonly plugins?: readonly Plugin[] | undefined;
}

export function pluginsReport({ plugins = [] }: PluginOptions): PluginsReport {
  if (plugins.length === 0) return {};
  return {
    plugins: plugins.map(({ name, version }) => (version === undefined ? name : `${name} ${version}`)),
  };
}
