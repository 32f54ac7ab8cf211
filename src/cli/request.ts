/** From flags and environment to the options of the library: names change here, and nothing is decided elsewhere. */
import { readFile } from "node:fs/promises";
import type {
  CertifiedOptions,
  ConvertOptions,
  LimitOptions,
  PlanOptions,
  PromptOptions,
  ReferenceOptions,
  RunOptions,
  SourceOptions,
  StrictOptions,
} from "../api/options.ts";
import type { FormatsReport } from "../api/reports.ts";
import { IsologitError, systemError, withLocation } from "../core/errors.ts";
import { PROMISED_ENDINGS, PROMISED_FORMATS } from "./absent.ts";
import { longName } from "./flag.ts";
import { FLAGS, type Flags } from "./options.ts";
import type { Session } from "./session.ts";
import { ids as readIds, refuse } from "./values.ts";

type Given<T> = { readonly [K in keyof T]?: Exclude<T[K], undefined> };

/** The entries that are there: an option left out is absent, never `undefined`. */
export function given<T extends object>(entries: T): Given<T> {
  // `Object.entries` forgets which key had which value; only entries that were undefined are gone.
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined)) as Given<T>;
}

/** A flag wins over its environment variable; an empty variable is an unset one. */
export function machineOptions(
  flags: Flags,
  session: Session,
): Pick<RunOptions, "backend" | "device" | "threads"> {
  const named = session.env.ISOLOGIT_BACKEND || undefined;
  const fromEnv = named === undefined ? undefined : FLAGS.backend.read?.(named, "ISOLOGIT_BACKEND");
  return given({ backend: flags.backend ?? fromEnv, device: flags.device, threads: flags.threads });
}

export function runOptions(flags: Flags, session: Session): RunOptions {
  const named = session.env.ISOLOGIT_MEMORY || undefined;
  const fromEnv = named === undefined ? undefined : FLAGS.memory.read?.(named, "ISOLOGIT_MEMORY");
  return {
    ...machineOptions(flags, session),
    ...given({ memoryBytes: flags.memory ?? fromEnv }),
    watch: session.watch,
    signal: session.signal,
  };
}

export const sourceOptions = (flags: Flags): SourceOptions =>
  given({ vocabSize: flags.vocabSize, like: flags.like, iteration: flags.iteration });

export function planOptions(flags: Flags, session: Session): PlanOptions {
  return {
    ...runOptions(flags, session),
    ...sourceOptions(flags),
    ...given({
      dtype: flags.dtype,
      recipe: flags.recipe,
      keepEnds: flags.keepEnds,
      maxShardBytes: flags.maxShardSize,
      alignment: flags.align === undefined ? undefined : Number(flags.align),
      allowOverflow: flags.allowOverflow,
      keepExtra: flags.keepExtra,
      tp: flags.tp,
      pp: flags.pp,
    }),
  };
}

export async function convertOptions(flags: Flags, session: Session): Promise<ConvertOptions> {
  return {
    ...planOptions(flags, session),
    ...(await promptOptions(flags)),
    ...limitOptions(flags),
    ...strictOptions(flags),
    ...given({
      verify: flags.verify,
      resume: flags.resume,
      overwrite: flags.overwrite,
      planFile: flags.plan,
      sign: flags.sign,
      bundle: flags.bundle,
      identityToken: flags.identityToken,
      fulcioUrl: flags.fulcioUrl,
      rekorUrl: flags.rekorUrl,
      tsaUrl: flags.tsaUrl,
    }),
  };
}

export const limitOptions = (flags: Flags): LimitOptions & ReferenceOptions =>
  given({ reference: flags.reference, tolerance: flags.tolerance, kl: flags.kl, top1: flags.top1 });

export const strictOptions = (flags: Flags): StrictOptions => given({ strict: flags.strict });

/** Of `verify A` alone. */
export const certifiedOptions = (flags: Flags): CertifiedOptions =>
  given({
    certificate: flags.certificate,
    publicKey: flags.publicKey,
    bundle: flags.bundle,
    trustedRoot: flags.trustedRoot,
    sigstoreIdentity: flags.sigstoreIdentity,
    sigstoreIssuer: flags.sigstoreIssuer,
  });

/** @throws USAGE, NOT_FOUND */
export async function promptOptions(flags: Flags): Promise<PromptOptions> {
  const both = (["ids", "idsFile", "prompt"] as const).filter((name) => flags[name] !== undefined);
  if (both.length > 1) {
    const [first, second] = both.map((name) => longName(FLAGS[name]));
    throw new IsologitError("USAGE", `${first} and ${second} were both given, expected one of them`);
  }
  const ids = flags.idsFile === undefined ? flags.ids : await idsIn(flags.idsFile);
  return given({ ids, prompt: flags.prompt, tokens: flags.tokens, seed: flags.seed });
}

async function idsIn(file: string): Promise<readonly number[]> {
  try {
    return readIds(await readFile(file, "utf8"), "--ids-file");
  } catch (error) {
    throw withLocation(systemError(error, { file }), { file });
  }
}

/**
 * The format that `--to` names, else the one that DST's ending says; undefined where neither does.
 *
 * @throws NOT_WRITTEN for what is promised, or only read; USAGE for what nobody knows
 */
export function targetOf(flags: Flags, dst: string, known: FormatsReport): string | undefined {
  const written = known.formats.filter((format) => format.writes);
  const { to } = flags;
  if (to !== undefined) {
    if (written.some((format) => format.id === to)) return to;
    const promised = PROMISED_FORMATS.some((id) => id === to) || known.formats.some(({ id }) => id === to);
    if (promised) throw new IsologitError("NOT_WRITTEN", `--to ${to} is not written by this version`);
    return refuse("--to", to, `one of ${written.map(({ id }) => id).join(", ")}`);
  }
  const path = dst.replace(/\/+$/, "");
  const said = written.find((format) => format.endings.some((ending) => path.endsWith(ending)));
  const ending = PROMISED_ENDINGS.find((candidate) => path.endsWith(candidate));
  if (said === undefined && ending !== undefined) {
    throw new IsologitError("NOT_WRITTEN", `${ending} files are not written by this version`, { file: dst });
  }
  return said?.id;
}

/** @throws USAGE: nothing says which format DST shall have */
export function withoutTarget(dst: string): never {
  throw new IsologitError(
    "USAGE",
    `--to is missing and the ending of ${JSON.stringify(dst)} says no format`,
    {},
    { next: "add --to with one of the formats that `isologit formats` lists as written" },
  );
}
