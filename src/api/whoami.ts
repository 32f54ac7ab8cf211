/** `auth whoami`: whose token the Hub sees. */
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { connect, offlineError } from "../hub/connection.ts";
import { type HubSettings, hubSettings, type TokenOrigin } from "../hub/settings.ts";

export interface WhoamiOptions {
  /** access token; default: the token of the environment */
  readonly token?: string;
  /** default: read from the environment */
  readonly settings?: HubSettings;
  readonly watch?: Watch;
  readonly signal?: AbortSignal;
}

export interface WhoamiReport {
  readonly name: string;
  readonly type: string;
  readonly organizations: readonly string[];
  readonly endpoint: string;
  /** what the token is called, and what it may do; null where the Hub does not say */
  readonly token: { readonly name: string | null; readonly role: string | null; readonly from: TokenOrigin };
}

/**
 * Asks the Hub whose token would be used.
 *
 * @param options a token in place of that of the environment
 * @returns the account, and where the token comes from; never the token
 * @throws ACCESS_REFUSED: there is no token, or the Hub does not know it; NETWORK, OFFLINE
 * @example
 * const { name } = await whoami();
 */
export async function whoami(options: WhoamiOptions = {}): Promise<WhoamiReport> {
  const settings = options.settings ?? (await hubSettings(process.env, options.token, options.watch));
  const { endpoint, token, tokenFrom } = settings;
  const at = { file: endpoint };
  if (settings.offline) throw offlineError(at);
  if (token === undefined || tokenFrom === null) {
    const next = "set HF_TOKEN, or log in with `hf auth login`; public repositories need no token";
    throw new IsologitError("ACCESS_REFUSED", "there is no token", at, { next });
  }
  const { access, fetchFor } = await connect(settings);
  const fetch = fetchFor({ repo: endpoint, at }, options.signal);
  const { whoAmI } = await import("@huggingface/hub");
  const { name, type, auth, ...rest } = await whoAmI({ ...access, accessToken: token, fetch });
  return {
    name,
    type,
    organizations: "orgs" in rest ? rest.orgs.map((org) => org.name) : [],
    endpoint,
    token: {
      name: auth.accessToken?.displayName ?? null,
      role: auth.accessToken?.role ?? null,
      from: tokenFrom,
    },
  };
}
