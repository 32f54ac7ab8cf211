/** A file is replaced while the program runs: what was verified is what appears. */
import { renameSync } from "node:fs";
import { join } from "node:path";
import type { Event } from "../../src/core/events.ts";
import { type Attack, askWhile, attacks } from "./attack.ts";
import { copied, otherModel, pair, put } from "./changes.ts";
import { asUndisturbed, stagedFile } from "./killed.ts";

const afterRung = (rung: string) => (event: Event) => event.type === "rung" && event.rung === rung;

const rows: readonly Attack[] = [
  {
    name: "toctou-verify",
    what: "B's weights are replaced by another model's after the bytes rung of verify A B",
    right: "red",
    async run(at) {
      const [a, b] = await pair(at, {});
      const other = await copied("tiny", join(at, "other"), otherModel);
      const replace = () => renameSync(join(other, "model.safetensors"), join(b, "model.safetensors"));
      return await askWhile(["verify", a, b], afterRung("bytes"), replace);
    },
  },
  {
    name: "toctou-rename",
    what: "staged weights are replaced by another model's after the logits rung of convert, before the rename",
    right: "red",
    async run(at) {
      const [source, destination] = [await copied("tiny", join(at, "a")), join(at, "c")];
      const other = join(await copied("tiny", join(at, "other"), otherModel), "model.safetensors");
      const staged = () => stagedFile({ staged: `${destination}.partial` }, "model.safetensors");
      const argv = ["convert", source, destination, "--to", "hf"];
      const answer = await askWhile(argv, afterRung("logits"), () => renameSync(other, staged()));
      return await asUndisturbed(answer, source, destination);
    },
  },
  {
    name: "toctou-tokenizer",
    what: "B's tokenizer.json is replaced after it was read: the verdict was true then",
    right: "told",
    async run(at) {
      const [a, b] = await pair(at, {});
      return await askWhile(["verify", a, b], afterRung("cover"), () => put(b, "tokenizer.json", "{}"));
    },
  },
];

attacks("during the run", rows);
