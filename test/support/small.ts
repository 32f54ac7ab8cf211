/** Synthetic models of a few kilobytes, in any layer pattern. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { smallModel } from "../../src/conformance/small-model.ts";

export { smallModel };

/** As `smallModel`, of one MLP and with side files of some hundred bytes. */
export async function smallModelWithFiles(folder: string): Promise<string> {
  await smallModel(folder, "-");
  for (const name of ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"]) {
    writeFileSync(join(folder, name), `{"${name}": "${"x".repeat(300)}"}\n`);
  }
  return folder;
}
