/**
 * A NeMo 2 folder: `context/` describes the model, `weights/` is a distributed checkpoint. The first releases put the
 * content of `weights/` beside `context/`.
 */
import type { Format } from "../format.ts";
import { isTokenizerFile } from "../tokenizer-files.ts";
import { TORCH_DTYPES } from "../torch-dist/dtypes.ts";
import { CONTEXT, PREFIX, weightsAmong } from "./files.ts";

export const nemo2: Format = {
  id: "nemo2",
  title: "NeMo 2 folder (torch_dist)",

  async detect(store) {
    const paths = (await store.list()).map(({ path }) => path);
    if (!paths.some((path) => path.startsWith(CONTEXT))) return "no";
    return weightsAmong(paths) === undefined ? "no" : "yes";
  },

  read: async (store) => (await import("./read.ts")).readNemo2(store),

  writes: {
    dialect: "megatron",
    software: "nemo2",
    config: "record",
    ranks: ["tp"],
    prefix: PREFIX,
    dtypes: TORCH_DTYPES,
    container: "folder",
    endings: [],
    takes: isTokenizerFile,
    place: async (wanted) => (await import("./write.ts")).placeNemo2(wanted),
    seal: async (wanted, _placement, sealed) =>
      (await import("../torch-dist/write.ts")).sealsOf(wanted, sealed),
  },
};
