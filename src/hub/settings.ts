/** Where the Hub is, who asks, and where its cache lies: the environment as Python's huggingface_hub reads it. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { RETRY_LIMITS, type RetryLimits } from "../io/retry.ts";

export interface HubSettings {
  /** no slash at its end */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** `HF_HOME`: what is not of one repository */
  readonly home: string;
  /** the folder of `models--owner--name` folders */
  readonly cache: string;
  /** nothing is asked of the network */
  readonly offline: boolean;
  readonly patience: RetryLimits;
  /** Larger files are not served by plain HTTP (a limit of the Hub's), and come by way of Xet. */
  readonly xetAboveBytes: number;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const HUB = "https://huggingface.co";
const PLAIN_HTTP_BYTES = 50e9;

/**
 * @param token what a person gave for this one run; it wins over the environment
 * @param watch hears of each request that is tried again
 * @throws USAGE for an endpoint that is no address, a token that is none
 */
export async function hubSettings(
  env: Environment = process.env,
  token?: string,
  watch?: Watch,
): Promise<HubSettings> {
  const home = expanded(env.HF_HOME || join(env.XDG_CACHE_HOME || "~/.cache", "huggingface"));
  const cache = expanded(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"));
  const endpoint = (env.HF_ENDPOINT || HUB).replace(/\/+$/, "");
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new IsologitError("USAGE", `HF_ENDPOINT is ${JSON.stringify(endpoint)}, expected an http address`);
  }
  return {
    endpoint,
    token: cleanToken(token ?? (await foundToken(env, home))),
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

const expanded = (path: string): string => path.replace(/^~(?=$|\/)/, homedir());

async function foundToken(env: Environment, home: string): Promise<string | undefined> {
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (given !== undefined && given !== "") return given;
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const path = expanded(env.HF_TOKEN_PATH || join(home, "token"));
  return await readFile(path, "utf8").catch((cause) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return undefined;
    throw systemError(cause, { file: path });
  });
}

/** Never says what was found: it may be most of a secret. */
function cleanToken(text: string | undefined): string | undefined {
  const token = text?.trim();
  if (token === undefined || token === "") return undefined;
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new IsologitError("USAGE", "the token holds blanks or characters that no token has");
  }
  if (token.startsWith("hf_")) return token;
  const message =
    "the token (--token, HF_TOKEN, or the file that `hf auth login` wrote) does not begin with hf_";
  throw new IsologitError(
    "USAGE",
    message,
    {},
    {
      next: "take a token from https://huggingface.co/settings/tokens, or unset it: public repositories need none",
    },
  );
}
