import { expect, it } from "vitest";
import { cliPage } from "./cli-page.ts";

it("docs/cli.md lists every command, flag, exit status and error code", async () => {
  await expect(cliPage()).toMatchFileSnapshot("../../docs/cli.md");
});
