/** An address as the files behind it, on this machine or on the Hub. */
import type { Store } from "./core/io.ts";
import { connect } from "./hub/connection.ts";
import { hubSettings } from "./hub/settings.ts";
import { type HubStore, hubStore } from "./hub/store.ts";
import { addressOf, localStore, unpacked } from "./io/locate.ts";

/**
 * @param keep what comes from the Hub will be read more than once: it is fetched once, into its cache
 * @throws USAGE, NOT_FOUND; of the Hub also ACCESS_REFUSED, NETWORK, OFFLINE, LISTING_UNSAFE
 */
export async function storeAt(text: string, keep = false): Promise<Store | HubStore> {
  const address = addressOf(text);
  if (address.kind === "local") return await localStore(address.path);
  return await unpacked(text, await hubStore(connect(await hubSettings()), address, keep));
}
