import { expect, it } from "vitest";
import { keysPage } from "./keys-page.ts";

it("docs/config-keys.md says what the tables say", async () => {
  await expect(keysPage()).toMatchFileSnapshot("../../docs/config-keys.md");
});
