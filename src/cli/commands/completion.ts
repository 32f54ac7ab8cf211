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
    const text = await scriptFor(SHELL!);
    return { report: { shell: SHELL, script: text }, exit: 0, text: () => [text] };
  },
};

/** The library prints its script: what it prints is taken, so that it goes where every result goes. */
async function scriptFor(shell: string): Promise<string> {
  const { script } = await import("@bomb.sh/tab");
  const { log } = console;
  const lines: string[] = [];
  console.log = (line: string) => lines.push(line);
  try {
    script(shell, "isologit", "isologit");
  } finally {
    console.log = log;
  }
  return lines.join("\n");
}
