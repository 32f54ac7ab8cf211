/** `convert` is killed when all is staged and nothing verified; something changes; `convert --resume`. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { library } from "../../bin/on-demand.ts";
import { type Attack, attacks, convert } from "../attacks/attack.ts";
import { copied, otherModel, put } from "../attacks/changes.ts";
import { type Killed, killedAt, resumed, stagedFile } from "../attacks/killed.ts";
import { run } from "../support/fake-library.ts";

/** A killed run whose staged files, or source, are changed before it goes on. */
const changed =
  (change: (killed: Killed, at: string) => void | Promise<void>, format: "hf" | "packed" = "hf") =>
  async (at: string) => {
    const killed = await killedAt(at, format);
    await change(killed, at);
    return await resumed(killed);
  };

const zero = (path: string) => writeFileSync(path, Buffer.alloc(statSync(path).size));

/** The digests of the first tensor in the journal become zeros. */
function forgeJournal(path: string): void {
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  const at = lines.findIndex(
    (line, i) => i > 0 && !JSON.parse(line).name?.startsWith("file:") && JSON.parse(line).sha256,
  );
  const entry = JSON.parse(lines[at]!);
  lines[at] = JSON.stringify({ ...entry, sha256: "0".repeat(64), crc32: entry.crc32.map(() => 0) });
  writeFileSync(path, `${lines.join("\n")}\n`);
}

const rows: readonly Attack[] = [
  {
    name: "resume-side-file",
    what: "a staged chat template is zeros",
    right: "red",
    run: changed((one) => zero(stagedFile(one, "chat_template.jinja"))),
  },
  {
    name: "resume-side-files-zero",
    what: "two staged JSON files are zeros",
    right: "red",
    run: changed((one) => {
      for (const name of ["generation_config.json", "special_tokens_map.json"]) zero(stagedFile(one, name));
    }),
  },
  {
    name: "resume-tensor",
    what: "a staged tensor is altered",
    right: "red",
    run: changed((one) => {
      const path = stagedFile(one, "model.safetensors");
      const bytes = readFileSync(path);
      bytes.writeUInt16LE(0x2211, bytes.length - 10);
      writeFileSync(path, bytes);
    }),
  },
  {
    name: "resume-extra-file",
    what: "remote code and an adapter are put into the staged folder",
    right: "red",
    run: changed((one) => {
      const folder = dirname(stagedFile(one, "config.json"));
      put(folder, "modeling_evil.py", "import os\n");
      put(folder, "adapter_config.json", "{}");
    }),
  },
  {
    name: "resume-source-changed",
    what: "a side file of the source is another of the same size",
    right: "red",
    run: changed(({ source }) => {
      const path = join(source, "chat_template.jinja");
      writeFileSync(path, "x".repeat(statSync(path).size));
    }),
  },
  {
    name: "resume-source-weights",
    what: "the weights of the source are another model's of the same size",
    right: "red",
    run: changed(async ({ source }, at) => {
      const other = await copied("tiny", join(at, "other"), otherModel);
      writeFileSync(join(source, "model.safetensors"), readFileSync(join(other, "model.safetensors")));
    }),
  },
  {
    name: "resume-journal-sha",
    what: "digests of a tensor are edited in the journal of a staged packed file",
    right: "red",
    run: changed((one) => forgeJournal(stagedFile(one, "journal.ndjson")), "packed"),
  },
  {
    name: "resume-journal-line",
    what: "a staged file is zeros although the journal has its line: pages that never reached the disk",
    right: "red",
    run: changed((one) => zero(stagedFile(one, "tokenizer_config.json"))),
  },
  {
    name: "plan-edited",
    what: "everything of a plan file but its id is edited: only the id counts",
    right: "green",
    async run(at) {
      const [source, destination] = [await copied("tiny", join(at, "a")), join(at, "c")];
      const planned = await run(["plan", source, destination, "--to", "hf", "--json"], { over: library });
      const plan = planned.json();
      put(
        at,
        "plan.json",
        JSON.stringify({ ...plan, exact: false, destination: { ...plan.destination, bytes: 1 } }),
      );
      return await convert(source, destination, "--to", "hf", "--plan", join(at, "plan.json"));
    },
  },
];

attacks("killed and resumed", rows);
