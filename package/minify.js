/** Makes the built files shorter for the package: without spaces and line breaks. Names stay, so that a stack trace can be read. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { transformSync } from "esbuild";

for (const file of readdirSync("dist", { recursive: true, encoding: "utf8" })) {
  if (!file.endsWith(".js")) continue;
  const path = join("dist", file);
  const options = { format: "esm", minifyWhitespace: true, minifySyntax: true };
  writeFileSync(path, transformSync(readFileSync(path, "utf8"), options).code);
}
