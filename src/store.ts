/** An address as the files behind it, on this machine or on the Hub. */
import type { Store } from "./core/io.ts";
import type { HubStore } from "./hub/store.ts";
import { addressOf, localStore, unpacked } from "./io/locate.ts";

/**
 * @param keep what comes from the Hub will be read more than once: it is fetched once, into its cache
 * @throws USAGE, NOT_FOUND; of the Hub also ACCESS_REFUSED, NETWORK, OFFLINE, LISTING_UNSAFE
 */
export async function storeAt(text: string, keep = false): Promise<Store | HubStore> {
  const address = addressOf(text);
  if (address.kind === "local") return await localStore(address.path);
  const { connect, hubSettings, hubStore } = await theHub();
  return await unpacked(text, await hubStore(connect(await hubSettings()), address, keep));
}

/** Loaded when it is first asked for: its libraries take longer to load than all the rest. */
async function theHub() {
  const [connection, settings, store] = await Promise.all([
    import("./hub/connection.ts"),
    import("./hub/settings.ts"),
    import("./hub/store.ts"),
  ]);
  return { ...connection, ...settings, ...store };
}
