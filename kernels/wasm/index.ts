// The exports of the WebAssembly module. AssemblyScript, compiled by asc; imports nothing outside this folder.
//
// Inner loops that use values computed before the loop test at their end (do ... while); every size is at least 1. V8
// moves computations into a loop that may run zero times: it computed two exponentials for every vector of the state in
// the scan, which then had a tenth of its speed.
export * from "./attention";
export * from "./blocks";
export * from "./cast";
export * from "./checksum";
export * from "./conv1d";
export * from "./elementwise";
export * from "./errors";
export * from "./linear";
export * from "./magnitudes";
export * from "./moe";
export * from "./norm";
export * from "./quantize/blocks32";
export * from "./quantize/q6k";
export * from "./quantize/ranges";
export * from "./rope";
export * from "./scan";
