/** An address as a store. */
import { IsologitError } from "../core/errors.ts";
import type { Store } from "../core/io.ts";
import { fileStore } from "./file.ts";
import { spooled } from "./spool.ts";

/** Archives, which may be packed with gzip: older releases of NeMo did. */
const PACKED = /\.(nemo|tar|tgz|gz)$/i;

/** @throws NOT_FOUND; NOT_AVAILABLE for addresses that this version cannot reach */
export async function storeAt(address: string): Promise<Store> {
  if (address.startsWith("hf://")) {
    throw new IsologitError("NOT_AVAILABLE", "hf:// addresses are not in this version", { file: address });
  }
  const store = await fileStore(address);
  return PACKED.test(address) ? await spooled(store) : store;
}
