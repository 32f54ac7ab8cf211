/** Finds out why Vulkan cannot work on Linux, without loading a driver: it needs a loader library and a driver file. */
import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** Queries about the machine; tests replace them. */
export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** whether the dynamic loader finds this library */
  loads(library: string): boolean;
  exists(path: string): boolean;
  /** names in a folder; none if it is missing */
  list(folder: string): readonly string[];
}

export const thisMachine: Machine = {
  platform: process.platform,
  env: process.env,
  loads(library) {
    try {
      process.dlopen({ exports: {} }, library);
    } catch (error) {
      // This error means that the library was found and loaded: Node only reports that it is not a module of Node.
      return String(error).includes("did not self-register");
    }
    return true;
  },
  exists: existsSync,
  list(folder) {
    try {
      return readdirSync(folder);
    } catch {
      return [];
    }
  },
};

const LOADER = "libvulkan.so.1";
const NVIDIA_DRIVER = "libGLX_nvidia.so.0";

/** Why Vulkan cannot work here; null if it can, or if Dawn does not use Vulkan. */
export function vulkanMissingReason(machine: Machine): string | null {
  if (machine.platform !== "linux") return null;
  if (!machine.loads(LOADER)) return `the Vulkan loader ${LOADER} is not installed`;
  if (driverFiles(machine).length > 0) return null;
  return graphicsMissingReason(machine) ?? "no Vulkan driver file (icd.d/*.json) is installed";
}

/** Why there is no adapter although loader and driver file exist. */
export function adapterMissingReason(machine: Machine): string {
  if (machine.platform !== "linux") return "Dawn finds no GPU that it can use";
  const files = driverFiles(machine).join(", ");
  return (
    graphicsMissingReason(machine) ?? `the Vulkan drivers named by ${files} offer no GPU that Dawn can use`
  );
}

/** A container with an NVIDIA GPU gets the libraries for computing only, unless it asks for the graphics ones. */
function graphicsMissingReason(machine: Machine): string | null {
  const device = ["/dev/nvidiactl", "/proc/driver/nvidia/version"].some((path) => machine.exists(path));
  if (!device || machine.loads(NVIDIA_DRIVER)) return null;
  return (
    `an NVIDIA GPU is here, but its Vulkan library ${NVIDIA_DRIVER} is not: ` +
    "a container needs NVIDIA_DRIVER_CAPABILITIES=all, or graphics among them"
  );
}

/** The driver files that the Vulkan loader reads, in its search order. */
function driverFiles({ env, list, exists }: Machine): readonly string[] {
  const listed = env.VK_DRIVER_FILES || env.VK_ICD_FILENAMES;
  if (listed) return listed.split(":").filter((file) => file !== "" && exists(file));
  const paths = (variable: string, otherwise: string) => (env[variable] || otherwise).split(":");
  const added = (env.VK_ADD_DRIVER_FILES ?? "").split(":").filter((file) => file !== "" && exists(file));
  const folders = [
    ...paths("XDG_CONFIG_HOME", join(homedir(), ".config")),
    ...paths("XDG_CONFIG_DIRS", "/etc/xdg"),
    "/usr/local/etc",
    "/etc",
    ...paths("XDG_DATA_HOME", join(homedir(), ".local/share")),
    ...paths("XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
  ].map((folder) => join(folder, "vulkan/icd.d"));
  return [
    ...added,
    ...folders.flatMap((folder) =>
      list(folder)
        .filter((name) => name.endsWith(".json"))
        .map((name) => join(folder, name)),
    ),
  ];
}
