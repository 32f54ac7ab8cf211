/** The GPUs of this machine, by name, what of theirs the shaders use, and one line on why there is none. */
import { IsologitError } from "../../src/core/errors.ts";
import type { Extensions } from "../kernel.ts";
import { type Dawn, dawnIsInstalled, instanceFor, loadDawn } from "./dawn.ts";
import { adapterMissingReason, type Machine, thisMachine, vulkanMissingReason } from "./vulkan.ts";

export interface Adapter {
  /** as its driver calls it: "NVIDIA H100 80GB HBM3" */
  readonly name: string;
  /** with its version, where known */
  readonly driver: string | null;
  /** true when a processor does the work */
  readonly software: boolean;
  /** those that its shaders take; a plain form of every one would run as well */
  readonly extensions: Extensions;
  readonly dawn: Dawn;
}

export interface Adapters {
  /** the fastest first, as far as Dawn knows */
  readonly found: readonly Adapter[];
  /** why there is none */
  readonly reason: string | null;
}

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|warp/i;
/** The name of no adapter: asked for it, Dawn answers with the names of all there are. */
const UNKNOWN_NAME = "<none>";

/**
 * Asks Dawn; where a Vulkan loader or driver is plainly missing, it is not even loaded, and prints no complaint.
 *
 * @throws USAGE for an ISOLOGIT_SHADERS that is none
 */
export async function findAdapters(machine: Machine = thisMachine): Promise<Adapters> {
  const plain = wantsPlainShaders(machine);
  const none = (reason: string): Adapters => ({ found: [], reason });
  if (!dawnIsInstalled()) return none("the optional npm package webgpu is not installed");
  const missing = vulkanMissingReason(machine);
  if (missing !== null) return none(missing);
  let dawn: Dawn;
  try {
    dawn = await loadDawn();
  } catch (error) {
    return none(`the npm package webgpu does not load here: ${String(error).split("\n")[0]}`);
  }
  const found: Adapter[] = [];
  for (const name of await listAdapterNames(dawn)) {
    const adapter = await requestAdapter(dawn, name);
    if (adapter === null) continue;
    const { description, isFallbackAdapter } = adapter.info;
    const software = isFallbackAdapter || SOFTWARE.test(`${name} ${description}`);
    const extensions = plain ? [] : shaderExtensions(adapter, instanceFor(dawn, name));
    found.push({ name, driver: description || null, software, extensions, dawn });
  }
  return found.length === 0 ? none(adapterMissingReason(machine)) : { found, reason: null };
}

/** Whether the environment wants the plain form of every shader. */
function wantsPlainShaders({ env }: Machine): boolean {
  const { ISOLOGIT_SHADERS: wanted = "auto" } = env;
  if (wanted === "auto" || wanted === "plain") return wanted === "plain";
  const message = `ISOLOGIT_SHADERS is "${wanted}", expected auto or plain`;
  throw new IsologitError("USAGE", message, {}, { next: "unset it, or set it to plain" });
}

/** The one place where it is decided which forms of the shaders run. */
function shaderExtensions({ features }: GPUAdapter, { wgslLanguageFeatures }: GPU): Extensions {
  // A subgroup's own number comes with the language, not with the device.
  return features.has("subgroups") && wgslLanguageFeatures.has("subgroup_id") ? ["subgroups"] : [];
}

/** Never `forceFallbackAdapter`: where there is no such adapter, Dawn would crash rather than answer. */
export function requestAdapter(dawn: Dawn, name: string): Promise<GPUAdapter | null> {
  return instanceFor(dawn, name).requestAdapter({ powerPreference: "high-performance" });
}

async function listAdapterNames(dawn: Dawn): Promise<readonly string[]> {
  try {
    await requestAdapter(dawn, UNKNOWN_NAME);
    return []; // without any adapter there is nothing to choose from, and no complaint
  } catch (error) {
    return [...new Set([...String(error).matchAll(/name: '(.+)'$/gm)].map((match) => match[1]!))];
  }
}
