/**
 * Settings of the Hub: its address, the token and the cache folder, from the same variables as Python's
 * huggingface_hub.
 */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { RETRY_LIMITS, type RetryLimits } from "../io/retry.ts";

export interface HubSettings {
  /** without a slash at the end */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** null without a token */
  readonly tokenFrom: TokenOrigin | null;
  /** `HF_HOME`: the folder for everything that does not belong to one repository */
  readonly home: string;
  /** the folder of `models--owner--name` folders */
  readonly cache: string;
  /** no request is sent */
  readonly offline: boolean;
  readonly patience: RetryLimits;
  /** The Hub does not serve larger files by plain HTTP; they are read by Xet. */
  readonly xetAboveBytes: number;
}

/** Where the token comes from: an argument, a variable, or the path of a file. */
export type TokenOrigin = "argument" | "HF_TOKEN" | "HUGGING_FACE_HUB_TOKEN" | `/${string}`;

export type Environment = Readonly<Record<string, string | undefined>>;

const HUB = "https://huggingface.co";
const PLAIN_HTTP_BYTES = 50e9;

/**
 * @param token the token of this run; used instead of the one in the environment
 * @param watch receives an event for each repeated request
 * @throws USAGE for an endpoint that is not an http address, or a malformed token
 */
export async function hubSettings(
  env: Environment = process.env,
  token?: string,
  watch?: Watch,
): Promise<HubSettings> {
  const home = expandHome(env.HF_HOME || join(env.XDG_CACHE_HOME || "~/.cache", "huggingface"));
  const cache = expandHome(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"));
  const endpoint = (env.HF_ENDPOINT || HUB).replace(/\/+$/, "");
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new IsologitError("USAGE", `HF_ENDPOINT is ${JSON.stringify(endpoint)}, expected an http address`);
  }
  const found =
    token === undefined ? await findToken(env, home) : ({ text: token, from: "argument" } as const);
  const checked = checkToken(found?.text);
  return {
    endpoint,
    token: checked,
    tokenFrom: checked === undefined ? null : found!.from, // a token that was checked was found
    home,
    cache,
    offline: isOffline(env),
    patience: watch === undefined ? RETRY_LIMITS : { ...RETRY_LIMITS, onRetry: tellRetries(watch) },
    xetAboveBytes: PLAIN_HTTP_BYTES,
  };
}

function tellRetries(watch: Watch): NonNullable<RetryLimits["onRetry"]> {
  return ({ message }, waitMs) => watch({ type: "retry", message, waitSeconds: waitMs / 1000 });
}

export const isOffline = (env: Environment): boolean =>
  isTrue(env.HF_HUB_OFFLINE) || isTrue(env.TRANSFORMERS_OFFLINE);

const isTrue = (value: string | undefined): boolean => /^(1|on|yes|true)$/i.test(value ?? "");

const expandHome = (path: string): string => path.replace(/^~(?=$|\/)/, homedir());

async function findToken(
  env: Environment,
  home: string,
): Promise<{ readonly text: string; readonly from: TokenOrigin } | undefined> {
  for (const name of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] as const) {
    const text = env[name];
    if (text !== undefined && text !== "") return { text, from: name };
  }
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const path = resolve(expandHome(env.HF_TOKEN_PATH || join(home, "token")));
  const text = await readFile(path, "utf8").catch((cause) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return undefined;
    throw systemError(cause, { file: path });
  });
  return text === undefined ? undefined : { text, from: path as `/${string}` }; // `resolve` makes it absolute
}

/** The messages never contain the token: even a part of it may be secret. */
function checkToken(text: string | undefined): string | undefined {
  const token = text?.trim();
  if (token === undefined || token === "") return undefined;
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new IsologitError(
      "USAGE",
      "the token contains spaces or characters that are not allowed in a token",
    );
  }
  if (token.startsWith("hf_")) return token;
  const message =
    "the token (`token`, HF_TOKEN, or the file that `hf auth login` wrote) does not begin with hf_";
  throw new IsologitError(
    "USAGE",
    message,
    {},
    {
      next: "take a token from https://huggingface.co/settings/tokens, or unset it: public repositories need none",
    },
  );
}
