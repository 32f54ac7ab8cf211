/**
 * A NeMo 1 archive: a tar with `model_config.yaml`, the files of the tokenizer, and weights in any of the forms that NeMo 1
 * used. The unpacked folder is read too. The format is not written, because no newer software loads it.
 */
import { readRange } from "../../src/core/io.ts";
import type { Format } from "../format.ts";
import { CONFIG, weightsAmong } from "./files.ts";

/** the mark of POSIX and GNU headers */
const MAGIC = { offset: 257, text: "ustar" };

export const nemo1: Format = {
  id: "nemo1",
  title: "NeMo 1 archive (.nemo)",

  async detect(store) {
    const files = await store.list();
    const paths = files.map(({ path }) => path);
    if (paths.includes(CONFIG)) return weightsAmong(paths) === undefined ? "no" : "yes";
    const [only, ...more] = files;
    if (only === undefined || more.length > 0 || only.size < 512) return "no";
    await using source = await store.open(only.path);
    const magic = await readRange(source, MAGIC.offset, MAGIC.text.length);
    return Buffer.from(magic).toString("latin1") === MAGIC.text ? "yes" : "no";
  },

  read: async (store) => (await import("./read.ts")).readNemo1(store),
};
