/** The commands of this version, in the order of the help text. A run loads its own command; help loads all of them. */
import type { Command } from "../command.ts";

const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  convert: async () => (await import("./convert.ts")).convert,
  merge: async () => (await import("./tasks/merge.ts")).merge,
  dispatch: async () => (await import("./tasks/dispatch.ts")).dispatch,
  recast: async () => (await import("./recast.ts")).recast,
  verify: async () => (await import("./verify.ts")).verify,
  prune: async () => (await import("./prune.ts")).prune,
  inspect: async () => (await import("./inspect.ts")).inspect,
  check: async () => (await import("./check.ts")).check,
  diff: async () => (await import("./diff.ts")).diff,
  scan: async () => (await import("./scan.ts")).scan,
  plan: async () => (await import("./plan.ts")).plan,
  logits: async () => (await import("./logits.ts")).logits,
  importance: async () => (await import("./importance.ts")).importance,
  generate: async () => (await import("./generate.ts")).generate,
  download: async () => (await import("./download.ts")).download,
  upload: async () => (await import("./upload.ts")).upload,
  auth: async () => (await import("./auth.ts")).auth,
  cache: async () => (await import("./cache.ts")).cache,
  doctor: async () => (await import("./doctor.ts")).doctor,
  formats: async () => (await import("./formats.ts")).formats,
  completion: async () => (await import("./completion.ts")).completion,
};

export const COMMAND_NAMES: readonly string[] = Object.keys(COMMANDS);

/** The command of this name alone; without such a command all of them. */
export async function loadCommands(name?: string): Promise<readonly Command[]> {
  const own =
    name !== undefined && Object.hasOwn(COMMANDS, name) ? [COMMANDS[name]!] : Object.values(COMMANDS);
  return await Promise.all(own.map((load) => load()));
}
