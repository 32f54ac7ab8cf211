import { expect, it } from "vitest";
import { apiPage } from "./api-page.ts";

it("docs/api.md holds the docstring of every function and the options and results of the library", async () => {
  await expect(apiPage()).toMatchFileSnapshot("../../docs/api.md");
});
