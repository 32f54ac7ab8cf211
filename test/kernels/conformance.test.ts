import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { kernels } from "../../kernels/index.ts";
import { kernelConformance } from "../../src/conformance/kernels.ts";

it("lists every definition of a kernel", () => {
  const folder = new URL("../../kernels/definitions/", import.meta.url);
  const ids = readdirSync(folder).flatMap((name) => {
    const text = readFileSync(new URL(name, folder), "utf8");
    return [...text.matchAll(/: KernelDefinition<\w+> = \{\n {2}id: "([\w-]+)"/g)].map((match) => match[1]);
  });
  expect(kernels.map(({ id }) => id).sort()).toEqual(ids.sort());
});

for (const kernel of kernels) kernelConformance(kernel);
