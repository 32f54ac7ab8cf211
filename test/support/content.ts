export * from "../../src/conformance/content.ts";
