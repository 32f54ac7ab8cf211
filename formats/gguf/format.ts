/** GGUF, the files of llama.cpp: one file, or the parts of one model beside each other. */
import { DECODED_BLOCKS } from "../../src/core/dtype.ts";
import { trailerBytes } from "../codec/certificate-trailer.ts";
import type { Format, Writer } from "../format.ts";
import { ggufNamed, hasMagic } from "./files.ts";

const WRITER: Writer = {
  dialect: "gguf",
  software: "llama.cpp",
  config: "record",
  prefix: "",
  dtypes: ["F32", "F16", "BF16", ...DECODED_BLOCKS],
  container: "file",
  endings: [".gguf"],
  takes: () => false, // it has no place for files: all are carried in keys
  inlinesFiles: true,
  notesWidening: true,
  trailer: trailerBytes,
  tensorTypes: {
    ofKind: async (kind, tensors) => (await import("./file-kinds.ts")).tensorTypes(kind, tensors),
    possible: async (tensors) => (await import("./file-kinds.ts")).possibleTypes(tensors),
  },
  place: async (wanted) => (await import("./write.ts")).placeGguf(wanted),
};

const { trailer: _, ...SHARED } = WRITER;
/** A set of files in a folder, where the certificate is a file. */
const IN_PARTS: Writer = {
  ...SHARED,
  container: "folder",
  place: async (wanted) => (await import("./write.ts")).placeGgufParts(wanted),
};

export const gguf: Format = {
  id: "gguf",
  title: "llama.cpp's file (.gguf)",

  async detect(store) {
    const paths = (await store.list()).map(({ path }) => path);
    // Beside safetensors, GGUF files are copies for other software.
    if (paths.length > 1 && paths.some((path) => /^[^/]+\.safetensors$/.test(path))) return "no";
    const [first] = ggufNamed(paths);
    if (first === undefined || !(await hasMagic(store, first))) return "no";
    return paths.length === 1 ? "yes" : "maybe";
  },

  read: async (store, options) => (await import("./read.ts")).readGguf(store, options),

  writes: { ...WRITER, inParts: IN_PARTS },
};
