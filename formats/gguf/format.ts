/**
 * GGUF, the files of llama.cpp: one file, or the parts of one model beside each other. Only headers are understood: the names of
 * tensors are read as they are stored, no family has them yet, and values of blocks are not decoded.
 */
import type { Format } from "../format.ts";
import { ggufNamed, hasMagic } from "./files.ts";

export const gguf: Format = {
  id: "gguf",
  title: "llama.cpp's file, headers only (.gguf)",

  async detect(store) {
    const paths = (await store.list()).map(({ path }) => path);
    // Beside safetensors, GGUF files are copies for other software.
    if (paths.length > 1 && paths.some((path) => /^[^/]+\.safetensors$/.test(path))) return "no";
    const [first] = ggufNamed(paths);
    if (first === undefined || !(await hasMagic(store, first))) return "no";
    return paths.length === 1 ? "yes" : "maybe";
  },

  read: async (store) => (await import("./read.ts")).readGguf(store),
};
