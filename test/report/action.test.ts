/** The action's own steps, run as a runner would, with the built program in npx's place. */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { version } from "../../src/version.ts";
import { golden, workFolder } from "../support/goldens.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const action = parse(readFileSync(join(ROOT, "action.yml"), "utf8"));
const work = workFolder();

mkdirSync(join(work, "bin"));
const npx = join(work, "bin", "npx");
const program = join(ROOT, "dist/bin/isologit.js");
writeFileSync(
  npx,
  `#!/bin/sh\n[ "$1 $2" = "--yes isologit@${version}" ] || exit 97\nshift 2\nexec "${process.execPath}" "${program}" "$@"\n`,
);
chmodSync(npx, 0o755);
writeFileSync(join(work, "torn.safetensors"), "torn");
mkdirSync(join(work, "a folder"));
cpSync(golden("tiny"), join(work, "retold"), { recursive: true });
writeFileSync(join(work, "retold/chat_template.jinja"), "{{ messages }}");
const retold = { source: golden("tiny"), destination: "retold", args: "--verify bytes --quiet" };

let runs = 0;

/** What `uses:` does for one set of inputs. */
function use(inputs: Readonly<Record<string, string>>) {
  const reports = `reports-${runs++}`;
  const [output, summary] = [join(work, `${reports}.out`), join(work, `${reports}.summary`)];
  writeFileSync(output, "");
  const value = (name: string): string => ({ reports, ...inputs })[name] ?? action.inputs[name].default ?? "";
  const [step] = action.runs.steps;
  const env = Object.entries<string>(step.env).map(([name, text]) => [
    name,
    text.replace(/^\$\{\{ inputs\.(\w+) \}\}$/, (_, input) => value(input)),
  ]);
  const { status, stderr } = spawnSync("bash", ["--noprofile", "--norc", "-eo", "pipefail", "-c", step.run], {
    cwd: work,
    encoding: "utf8",
    env: {
      ...process.env,
      ...Object.fromEntries(env),
      PATH: `${join(work, "bin")}:${process.env.PATH}`,
      GITHUB_OUTPUT: output,
      GITHUB_STEP_SUMMARY: summary,
    },
  });
  const outputs = Object.fromEntries(
    readFileSync(output, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split("=")),
  );
  return { status, stderr, outputs, summary: existsSync(summary) ? readFileSync(summary, "utf8") : "" };
}

const bytes = "--verify bytes --quiet";

describe("action.yml", () => {
  it.each([
    ["check", { source: golden("tiny") }, 0, "sound"],
    ["check", { source: "torn.safetensors", args: "--keep-going" }, 1, "unsound"],
    ["scan", { source: golden("tiny") }, 0, "clean"],
    ["diff", { source: golden("tiny"), destination: golden("tiny") }, 0, "equal"],
    ["diff", { source: golden("tiny"), destination: golden("tiny-t5") }, 1, "different"],
    ["verify", { source: golden("tiny"), destination: golden("tiny"), args: bytes }, 0, "same"],
    ["verify", { source: golden("tiny"), destination: golden("sharded"), args: bytes }, 1, "different"],
    ["verify", retold, 0, "same"],
    ["verify", { ...retold, strict: "true" }, 1, "different"],
    ["verify", { source: "a folder", destination: golden("tiny") }, 3, "stopped"],
    ["verify", { source: "$(touch owned)", destination: golden("tiny") }, 4, "stopped"],
  ])("%s %o", (command, inputs, status, verdict) => {
    const used = use({ command, ...inputs });
    expect([used.status, used.outputs.verdict], used.stderr).toEqual([status, verdict]);
    for (const kind of ["sarif", "junit", "md"])
      expect(existsSync(join(work, used.outputs[kind]!))).toBe(true);
    expect(used.summary).toContain(`isologit ${command}: ${verdict}`);
    expect(existsSync(join(work, "owned"))).toBe(false);
  });

  it("runs no other command, and says nothing of reports that are not there", () => {
    expect(use({ command: "convert", source: "a" }).status).toBe(2);
    const { status, outputs } = use({ command: "check", source: golden("tiny"), args: "--bogus" });
    expect([status, outputs]).toEqual([2, { verdict: "stopped" }]);
  });

  it("pins this version, and lists what it gives", () => {
    expect(action.inputs.version.default).toBe(version);
    expect(action.runs.using).toBe("composite");
    expect(Object.keys(action.outputs)).toEqual(["verdict", "sarif", "junit", "md"]);
  });
});
