/// <reference types="node" preserve="true" />
/** `isologit/conformance`: the suites that the parts of this version pass, for the test files of vitest. */
export { type FamilyTrial, familyConformance } from "../conformance/families.ts";
export { type FormatTrial, formatConformance, type HostileFiles } from "../conformance/formats.ts";
export { kernelConformance } from "../conformance/kernels.ts";
export { memoryStore } from "../conformance/memory-store.ts";
