/** The parts that one run knows: those of this version, and those of its plug-ins. */
import type { Format } from "../../formats/format.ts";
import { formats } from "../../formats/index.ts";
import type { Kernel, ScriptKernel } from "../../kernels/kernel.ts";
import { IsologitError } from "../core/errors.ts";
import type { Family } from "../families/family.ts";
import { families } from "../families/index.ts";
import { refuseInvalidPlugin } from "./members.ts";
import type { Plugin, PluginOptions } from "./plugin.ts";
import { QUANT_DIALECTS, type QuantizationDialect } from "./quantization-dialect.ts";

interface Registry {
  readonly formats: readonly Format[];
  readonly families: readonly Family[];
  /** of plug-ins alone: the room of those of this version needs this one */
  readonly quantizationDialects: readonly QuantizationDialect[];
}

const HOUSE: Registry = { formats, families, quantizationDialects: [] };

/**
 * The parts of this version, then those of the plug-ins in their order.
 *
 * @throws PLUGIN_INVALID: a plug-in lacks a member, or two parts of one kind have the same id
 */
export function registryOf({ plugins = [] }: PluginOptions): Registry {
  if (plugins.length === 0) return HOUSE;
  for (const plugin of plugins) refuseInvalidPlugin(plugin);
  refuseSameNames(plugins);
  refuseSameIds("formats", HOUSE.formats, plugins);
  refuseSameIds("families", HOUSE.families, plugins);
  refuseSameIds(
    "quantizationDialects",
    QUANT_DIALECTS.map((id) => ({ id })),
    plugins,
  );
  return {
    formats: [...HOUSE.formats, ...plugins.flatMap((plugin) => plugin.formats ?? [])],
    families: [...HOUSE.families, ...plugins.flatMap((plugin) => plugin.families ?? [])],
    quantizationDialects: plugins.flatMap((plugin) => plugin.quantizationDialects ?? []),
  };
}

/**
 * The kernels of this version and of the plug-ins. They stand apart, because most calls run no kernel and do not load them.
 *
 * @throws PLUGIN_INVALID, as `registryOf`
 */
export async function kernelsOf(options: PluginOptions): Promise<readonly (Kernel | ScriptKernel)[]> {
  const { plugins = [] } = options;
  registryOf(options);
  const { kernels } = await import("../../kernels/index.ts");
  refuseSameIds("kernels", kernels, plugins);
  return [...kernels, ...plugins.flatMap((plugin) => plugin.kernels ?? [])];
}

/** @throws PLUGIN_INVALID: names the id, and who has it */
function refuseSameIds(
  kind: "formats" | "families" | "kernels" | "quantizationDialects",
  own: readonly { readonly id: string }[],
  plugins: readonly Plugin[],
): void {
  const owners = new Map(own.map(({ id }) => [id, "isologit"]));
  for (const { name, [kind]: parts = [] } of plugins) {
    for (const { id } of parts) {
      const owner = owners.get(id);
      if (owner !== undefined)
        throw sameError(`${name} has ${id} in \`${kind}\`, and ${owner} has that id already`);
      owners.set(id, name);
    }
  }
}

/** @throws PLUGIN_INVALID */
function refuseSameNames(plugins: readonly Plugin[]): void {
  const names = plugins.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw sameError(`${twice} is the name of two plug-ins`);
}

const sameError = (message: string) =>
  new IsologitError(
    "PLUGIN_INVALID",
    message,
    {},
    { next: "rename one of the two, or give only one of them" },
  );
