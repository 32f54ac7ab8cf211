/**
 * The packed format: one `.isologit` file with a whole checkpoint. It opens with two reads, its tensors are aligned for direct
 * I/O, and the original files can be restored from it. docs/packed-format.md is the specification.
 */
import { DTYPES } from "../../src/core/dtype.ts";
import { readRange, type Store } from "../../src/core/io.ts";
import { trailerBytes } from "../codec/certificate-trailer.ts";
import type { Format } from "../format.ts";
import { hasMagic, MAGIC } from "./head.ts";

export const packed: Format = {
  id: "packed",
  title: "Isologit packed file",
  detect,
  read: async (store) => (await import("./read.ts")).readPacked(store),
  async *damage(store, signal) {
    const { packedDamage } = await import("./read.ts");
    yield* packedDamage(store, signal);
  },
  writes: {
    dialect: "hf",
    software: "hf",
    config: "file",
    prefix: "",
    dtypes: DTYPES,
    container: "file",
    endings: [".isologit"],
    trailer: trailerBytes,
    place: async (wanted) => (await import("./write.ts")).placePacked(wanted),
    seal: async (wanted, _placement, sealed) => (await import("./write.ts")).sealPacked(wanted, sealed),
  },
};

async function detect(store: Store): Promise<"yes" | "no"> {
  const files = await store.list();
  const only = files[0];
  if (only === undefined || files.length > 1 || only.size < MAGIC.byteLength) return "no";
  await using source = await store.open(only.path);
  return hasMagic(await readRange(source, 0, MAGIC.byteLength)) ? "yes" : "no";
}
