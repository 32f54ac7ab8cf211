/** `auth whoami`: whose token the Hub sees. Tokens are saved by `hf auth login` of the Hub's own client. */
import { escapeControls } from "../../core/figures.ts";
import type { WhoamiOptions, WhoamiReport } from "../../index.ts";
import { defineCommand } from "../command.ts";
import { WITH_EVENTS } from "../options.ts";
import { factTable, type View } from "../render.ts";
import { refuseWord } from "../values.ts";

export const auth = defineCommand<WhoamiOptions>({
  name: "auth",
  summary: "show whose access token the Hub sees, and where the token comes from",
  positionals: [{ name: "ACTION", about: "whoami" }],
  flags: ["token", ...WITH_EVENTS],
  examples: ["auth whoami"],
  async run({ positionals: { ACTION }, options }, { library }) {
    if (ACTION !== "whoami") refuseWord("ACTION", ACTION!, ["whoami"]);
    const report = await library.whoami(options);
    return { report, exit: 0, text: (view) => whoamiText(report, view) };
  },
});

function whoamiText({ name, type, organizations, endpoint, token }: WhoamiReport, view: View): string[] {
  const words = [token.name ?? "a token", ...(token.role === null ? [] : [`for ${token.role}`])];
  return factTable(view, [
    ["account", escapeControls(`${name}, ${type}`)],
    ["organizations", organizations.map(escapeControls).join(", ") || null],
    [
      "token",
      escapeControls(`${words.join(" ")}, from ${token.from === "argument" ? "--token" : token.from}`),
    ],
    ["hub", escapeControls(endpoint)],
  ]);
}
