/** The example of docs/extending.md: it passes the suites as its author runs them, and the page shows its code. */
import "../../fixtures/plugin/plugin.test.js";
import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";

const root = new URL("../..", import.meta.url).pathname;

it("is what docs/extending.md shows", () => {
  const folder = `${root}fixtures/plugin/`;
  const sources = readdirSync(folder).filter((file) => file.endsWith(".js"));
  const code = sources.map((file) => readFileSync(folder + file, "utf8")).join("\n");
  const page = readFileSync(`${root}docs/extending.md`, "utf8");
  const shown = [...page.matchAll(/```js\n([\s\S]*?)```/g)].map(([, block]) => block!);
  expect(shown.length).toBeGreaterThan(3);
  for (const block of shown) expect(code).toContain(block);
});
