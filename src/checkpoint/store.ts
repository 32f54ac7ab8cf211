/** An address as the files behind it, on this machine or on the Hub. */
import type { Watch } from "../core/events.ts";
import type { Store } from "../core/io.ts";
import type { HubStore } from "../hub/read/store.ts";
import { addressOf, localStore, unpackStore } from "../io/address.ts";

/**
 * @param keep what comes from the Hub will be read more than once: it is fetched once, into its cache
 * @throws USAGE, NOT_FOUND; of the Hub also ACCESS_REFUSED, NETWORK, OFFLINE, LISTING_UNSAFE
 */
export async function storeAt(text: string, keep = false, watch?: Watch): Promise<Store | HubStore> {
  const address = addressOf(text);
  if (address.kind === "local") return await localStore(address.path);
  // The Hub's libraries take longer to load than all the rest: only who asks for it waits.
  const { openHubStore } = await import("../hub/read/store.ts");
  return await unpackStore(text, await openHubStore(address, keep, watch));
}
