/** `completion`: prints a script that completes commands, flags and their values in a shell. */
import type { Command } from "../command.ts";
import { OUTPUT } from "../options.ts";
import { refuseWord } from "../values.ts";

const SHELLS = ["bash", "zsh", "fish"];

export const completion: Command = {
  name: "completion",
  summary: "print a script for a shell that completes commands, flags and values",
  positionals: [{ name: "SHELL", about: `one of ${SHELLS.join(", ")}` }],
  flags: OUTPUT,
  examples: [
    "completion bash > ~/.local/share/bash-completion/completions/isologit",
    "completion zsh > ~/.zfunc/_isologit",
    "completion fish > ~/.config/fish/completions/isologit.fish",
  ],
  async run({ positionals: { SHELL } }) {
    if (!SHELLS.includes(SHELL!)) refuseWord("SHELL", SHELL!, SHELLS);
    const { script } = await import("@bomb.sh/tab");
    script(SHELL!, "isologit", "isologit"); // prints
    return { report: {}, exit: 0, text: () => [] };
  },
};
