// The module's exports, one file a kernel. AssemblyScript: compiled by asc, imports nothing outside this folder.
export * from "./add";
export * from "./attention";
export * from "./cast";
export * from "./conv1d";
export * from "./gated-norm";
export * from "./linear";
export * from "./relu2";
export * from "./rms-norm";
export * from "./ssd";
export * from "./widen";
