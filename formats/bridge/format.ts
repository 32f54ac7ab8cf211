/**
 * A distributed checkpoint of Megatron: `iter_0000100/` with `.metadata` and its files, written by Megatron-Bridge (with
 * `run_config.yaml`, tokenizer and training state) or by Megatron-LM (with its arguments). Such a folder alone, a bare
 * folder of torch.distributed.checkpoint, and the older backend zarr are read too.
 */
import type { Format } from "../format.ts";
import { foldersWith } from "../megatron/iterations.ts";
import { isTokenizerFile } from "../tokenizer-files.ts";
import { TORCH_DTYPES } from "../torch-dist/dtypes.ts";
import { DIST_MARKER } from "../torch-dist/marker.ts";

/** the folder beside the weights of NeMo 2 */
const NEMO_CONTEXT = /^context\//;

export const bridge: Format = {
  id: "bridge",
  title: "Megatron distributed checkpoint (torch_dist; reads zarr)",
  iterations: true,

  async detect(store) {
    const paths = (await store.list()).map(({ path }) => path);
    if (paths.some((path) => NEMO_CONTEXT.test(path))) return "no";
    return foldersWith(paths, DIST_MARKER).length > 0 ? "yes" : "no";
  },

  read: async (store, options) => (await import("./read.ts")).readBridge(store, options),

  writes: {
    dialect: "megatron",
    software: "bridge",
    config: "record",
    ranks: ["tp"],
    prefix: "",
    dtypes: TORCH_DTYPES,
    container: "folder",
    endings: [],
    takes: isTokenizerFile,
    place: async (wanted) => (await import("./write.ts")).placeBridge(wanted),
    seal: async (wanted, _placement, sealed) =>
      (await import("../torch-dist/write.ts")).sealsOf(wanted, sealed),
  },
};
