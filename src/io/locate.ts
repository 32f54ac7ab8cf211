/** An address as a store. */
import { IsologitError } from "../core/errors.ts";
import type { Store } from "../core/io.ts";
import { fileStore } from "./file.ts";

/** @throws NOT_FOUND; NOT_AVAILABLE for addresses that this version cannot reach */
export async function storeAt(address: string): Promise<Store> {
  if (address.startsWith("hf://")) {
    throw new IsologitError("NOT_AVAILABLE", "hf:// addresses are not in this version", { file: address });
  }
  return fileStore(address);
}
