/** The pages by task run as written, twice in a row. */
import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { shell } from "../support/program.ts";

const root = new URL("../..", import.meta.url).pathname;
const work = workFolder();
cpSync(golden("nemo2-tiny"), join(work, "my-nemo"), { recursive: true });

/** The commands of a page, in order. */
function commandsIn(page: string): string {
  const text = readFileSync(join(root, "docs/tasks", page), "utf8");
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block).join("");
}

it.each([
  ["nemo-to-vllm.md", "engines can serve it as it stands"],
  ["publish-fp8.md", "within"],
  ["fit-a-card.md", "chosen"],
])("%s", async (page, said) => {
  const model = join(work, "my-model");
  rmSync(model, { recursive: true, force: true });
  if (page !== "nemo-to-vllm.md") cpSync(golden("tiny"), model, { recursive: true });
  for (const _ of ["once", "again"]) {
    const { status, stdout, stderr } = await shell(`set -e\n${commandsIn(page)}`, { cwd: work });
    expect(status, stderr).toBe(0);
    expect(stdout).toContain(said);
  }
});
