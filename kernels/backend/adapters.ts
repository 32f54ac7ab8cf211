/** Lists the GPUs of this machine with the extensions that shaders use, or the reason why there is none. */
import { IsologitError } from "../../src/core/errors.ts";
import type { Extensions } from "../kernel.ts";
import { type Dawn, dawnAddress, INSTALL_DAWN, instanceFor, loadDawn } from "./dawn.ts";
import { adapterMissingReason, type Machine, thisMachine, vulkanMissingReason } from "./vulkan.ts";

export interface Adapter {
  /** name given by the driver: "NVIDIA H100 80GB HBM3" */
  readonly name: string;
  /** name and version of the driver, if known */
  readonly driver: string | null;
  /** true if the adapter computes on a CPU */
  readonly software: boolean;
  /** WGSL extensions that its shaders use; the plain form of every shader would run as well */
  readonly extensions: Extensions;
  readonly dawn: Dawn;
}

export interface Adapters {
  /** fastest first, in the order of Dawn */
  readonly found: readonly Adapter[];
  /** why there is none; null if there is one */
  readonly reason: string | null;
  /** command that installs Dawn, if it is missing, whatever else is */
  readonly install?: string;
}

export const DAWN_MISSING = "the npm package webgpu is not installed";
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|warp/i;
/** A name that no adapter has: Dawn's error message for it lists the names of all adapters. */
const UNKNOWN_NAME = "<none>";

/**
 * Asks Dawn. If a Vulkan loader or driver is missing, Dawn is not loaded, since it would print a message.
 *
 * @throws USAGE for an unknown value of ISOLOGIT_SHADERS
 */
export async function findAdapters(
  machine: Machine = thisMachine,
  address = dawnAddress(machine),
): Promise<Adapters> {
  const plain = wantsPlainShaders(machine);
  const none = (reason: string): Adapters => ({ found: [], reason });
  const missing = vulkanMissingReason(machine);
  if (address === null) return { ...none(missing ?? DAWN_MISSING), install: INSTALL_DAWN };
  if (missing !== null) return none(missing);
  let dawn: Dawn;
  try {
    dawn = await loadDawn(address);
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

/** Whether the environment asks for the plain form of every shader. */
function wantsPlainShaders({ env }: Machine): boolean {
  const { ISOLOGIT_SHADERS: wanted = "auto" } = env;
  if (wanted === "auto" || wanted === "plain") return wanted === "plain";
  const message = `ISOLOGIT_SHADERS is "${wanted}", expected auto or plain`;
  throw new IsologitError("USAGE", message, {}, { next: "unset it, or set it to plain" });
}

/** Decides which forms of the shaders run. */
function shaderExtensions({ features }: GPUAdapter, { wgslLanguageFeatures }: GPU): Extensions {
  // `subgroup_id` is a feature of the language, not of the device.
  return features.has("subgroups") && wgslLanguageFeatures.has("subgroup_id") ? ["subgroups"] : [];
}

/** Does not use `forceFallbackAdapter`: without such an adapter Dawn crashes. */
export function requestAdapter(dawn: Dawn, name: string): Promise<GPUAdapter | null> {
  return instanceFor(dawn, name).requestAdapter({ powerPreference: "high-performance" });
}

async function listAdapterNames(dawn: Dawn): Promise<readonly string[]> {
  try {
    await requestAdapter(dawn, UNKNOWN_NAME);
    return []; // Dawn throws no error if there is no adapter at all
  } catch (error) {
    return [...new Set([...String(error).matchAll(/name: '(.+)'$/gm)].map((match) => match[1]!))];
  }
}
