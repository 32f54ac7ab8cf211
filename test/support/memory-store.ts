export * from "../../src/conformance/memory-store.ts";
