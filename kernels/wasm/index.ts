// The module's exports, one file a kernel. AssemblyScript: compiled by asc, imports nothing outside this folder.
//
// Inner loops that use what was computed before them test at their end (do ... while), and every size is at least 1.
// V8 hoists nothing out of a loop that may run zero times: it even moves sums in, and once computed two exponentials
// for every vector of the scan's state, at a tenth of the speed.
export * from "./add";
export * from "./attention";
export * from "./cast";
export * from "./conv1d";
export * from "./copy";
export * from "./gated-norm";
export * from "./linear";
export * from "./mix";
export * from "./relu2";
export * from "./rms-norm";
export * from "./router-choose";
export * from "./router-score";
export * from "./router-weigh";
export * from "./scan";
export * from "./widen";
