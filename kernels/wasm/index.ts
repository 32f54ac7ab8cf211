// The module's exports, one file a kernel. AssemblyScript: compiled by asc, imports nothing outside this folder.

export * from "./cast";
export * from "./relu2";
