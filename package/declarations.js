// Before `npm pack`: keeps declarations of internal modules out of the package. What `src/index.d.ts` does not reach is
// listed in dist/.npmignore.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const dist = new URL("../dist/", import.meta.url);
const reached = new Set();
const waiting = [new URL("src/index.d.ts", dist).href];
for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
  if (reached.has(file)) continue;
  reached.add(file);
  for (const [, name] of readFileSync(fileURLToPath(file), "utf8").matchAll(/(?:from |import\()"(\.[^"]+)"/g))
    waiting.push(new URL(name.replace(/\.[jt]s$/, ".d.ts"), file).href);
}

const paths = readdirSync(dist, { recursive: true, encoding: "utf8" }).map((path) =>
  path.replaceAll("\\", "/"),
);
const internal = paths.filter((path) => path.endsWith(".d.ts") && !reached.has(new URL(path, dist).href));
writeFileSync(new URL(".npmignore", dist), internal.map((path) => `/${path}\n`).join(""));
