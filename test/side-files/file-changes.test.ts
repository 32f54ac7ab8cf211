/** A file that changes during a verification, after it was read: the verdict would be of files that are gone. */
import { appendFileSync, cpSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");
writeFileSync(join(model, "chat_template.jinja"), "{{ messages }}");
const certified = join(work, "certified");
await convert(model, certified, { to: "hf", verify: "bytes", threads: 1 });
let counter = 0;

it.each<[string, string, (file: string) => void]>([
  [
    "replaced by another",
    "chat_template.jinja",
    (file) => {
      writeFileSync(`${file}.new`, "{{ other }}");
      renameSync(`${file}.new`, file);
    },
  ],
  ["appended to", "chat_template.jinja", (file) => appendFileSync(file, "x")],
  ["removed", "config.json", (file) => rmSync(file)],
  ["written anew", "model.safetensors", (file) => utimesSync(file, 1, 1)],
])("%s after the last rung", async (_, name, change) => {
  for (const isAlone of [false, true]) {
    const folder = join(work, String(counter++));
    cpSync(certified, folder, { recursive: true });
    const options = {
      ...({ verify: "bytes", threads: 1 } as const),
      watch: (event: { type: string; rung?: string }) => {
        if (event.type === "rung" && event.rung === "bytes") change(join(folder, name));
      },
    };
    const verified = isAlone ? verify(folder, undefined, options) : verify(model, folder, options);
    await expect(verified).rejects.toMatchObject({ code: "FILE_CHANGED", exit: 4, at: { file: name } });
  }
});
