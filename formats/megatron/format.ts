/**
 * The legacy checkpoint of Megatron-LM: a torch file for each rank of tensor, pipeline and expert parallelism. Modules have
 * the names and the parts of matrices that the model of that rank had.
 */
import type { Format } from "../format.ts";
import { TORCH_DTYPES } from "../torch-dist/dtypes.ts";
import { foldersWith, RANK_FILE } from "./iterations.ts";

export const megatron: Format = {
  id: "megatron",
  title: "Megatron-LM ranks (mp_rank_*)",
  iterations: true,

  async detect(store) {
    const paths = (await store.list()).map(({ path }) => path);
    return foldersWith(paths, RANK_FILE).length > 0 ? "yes" : "no";
  },

  read: async (store, options) => (await import("./read.ts")).readMegatron(store, options),

  writes: {
    dialect: "megatron-ranks",
    software: "megatron",
    config: "record",
    ranks: ["tp", "pp"],
    prefix: "",
    dtypes: TORCH_DTYPES,
    container: "folder",
    endings: [],
    takes: () => false,
    place: async (wanted) => (await import("./write.ts")).placeMegatron(wanted),
    seal: async (wanted, _placement, sealed) => (await import("./write.ts")).sealMegatron(wanted, sealed),
  },
};
