/** The steps of the action and of docs/ci.md, run as a runner would, with the built program in the place of npx. */
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
const program = `"${process.execPath}" "${join(ROOT, "dist/bin/isologit.js")}" "$@"`;
function standIn(name: string, ...lines: readonly string[]): void {
  writeFileSync(join(work, "bin", name), ["#!/bin/sh", ...lines, `exec ${program}`, ""].join("\n"));
  chmodSync(join(work, "bin", name), 0o755);
}
standIn("isologit");
standIn(
  "npx",
  `case "$*" in`,
  `"--yes --package=isologit@${version} -- isologit "* | "--yes --package=${work}/packed.tgz -- isologit "*) shift 4 ;;`,
  `"--yes isologit@${version} "*) shift 2 ;;`,
  "*) exit 97 ;;",
  "esac",
);
const PATH = `${join(work, "bin")}:${process.env.PATH}`;
writeFileSync(join(work, "packed.tgz"), "");
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
  const { status, stdout, stderr } = spawnSync(
    "bash",
    ["--noprofile", "--norc", "-eo", "pipefail", "-c", step.run],
    {
      cwd: work,
      encoding: "utf8",
      env: {
        ...process.env,
        ...Object.fromEntries(env),
        PATH,
        GITHUB_OUTPUT: output,
        GITHUB_STEP_SUMMARY: summary,
      },
    },
  );
  const outputs = Object.fromEntries(
    readFileSync(output, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split("=")),
  );
  const annotations = stdout.split("\n").filter((line) => line.startsWith("::"));
  return {
    status,
    stderr,
    outputs,
    annotations,
    summary: existsSync(summary) ? readFileSync(summary, "utf8") : "",
  };
}

const KINDS = ["sarif", "junit", "html", "md", "json"];
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
    for (const kind of KINDS) expect(existsSync(join(work, used.outputs[kind]!))).toBe(true);
    expect(used.summary).toContain(`isologit ${command}: ${verdict}`);
    expect(existsSync(join(work, "owned"))).toBe(false);
  });

  it.each([
    [{ command: "convert" }, "command is 'convert'"],
    [{ source: "" }, "source is empty"],
    [{ destination: "b" }, "check takes no destination"],
    [{ reference: "r" }, "check takes no reference"],
    [{ command: "diff" }, "diff needs a destination"],
    [{ strict: "yes" }, "strict=yes, expected"],
    [{ annotations: "1" }, "annotations=1, expected"],
    [{ version: "0.1.0 --evil" }, "expected a version"],
    [{ version: "absent.tgz" }, "no such file"],
  ])("refuses %o", (inputs, message) => {
    const { status, stderr, outputs } = use({ command: "check", source: golden("tiny"), ...inputs });
    expect([status, outputs]).toEqual([2, {}]);
    expect(stderr).toContain(message);
  });

  it("says nothing of reports that are not there", () => {
    const { status, outputs } = use({ command: "check", source: golden("tiny"), args: "--bogus" });
    expect([status, outputs]).toEqual([2, { verdict: "stopped" }]);
  });

  it("runs a packed file, and annotates what it finds", () => {
    const { annotations } = use({ source: "torn.safetensors", version: "packed.tgz" });
    expect(annotations).toEqual([
      expect.stringMatching(/^::error file=torn.safetensors,title=[a-z-]+::[^\n]+/),
    ]);
    expect(use({ source: "torn.safetensors", annotations: "false" }).annotations).toEqual([]);
  });

  it("pins this version, and lists what it gives", () => {
    expect(action.inputs.version.default).toBe(version);
    expect(action.runs.using).toBe("composite");
    expect(Object.keys(action.outputs)).toEqual(["verdict", ...KINDS]);
  });
});

describe("docs/ci.md", () => {
  const text = readFileSync(join(ROOT, "docs/ci.md"), "utf8");
  for (const name of ["models/nemotron", "trusted", "candidate"])
    cpSync(golden("tiny"), join(work, name), { recursive: true });

  /** Lines below keys that hold commands, wherever they are. */
  const commandsIn = (part: unknown, key = ""): readonly string[] => {
    if (typeof part === "string") return ["run", "script", "entry"].includes(key) ? [part] : [];
    if (Array.isArray(part)) return part.flatMap((item) => commandsIn(item, key));
    return Object.entries(part ?? {}).flatMap(([name, value]) => commandsIn(value, name));
  };
  const blocks = (language: string) =>
    [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map(([, block]) => block!);
  const lines = [...blocks("sh"), ...blocks("yaml").flatMap((block) => commandsIn(parse(block)))];

  it.each([...new Set(lines.map((line) => line.trim()))])("%s", (line) => {
    const offline = line.replace(" --sign sigstore --bundle nemotron.sig", ""); // which needs the network
    const { status, stderr } = spawnSync("bash", ["-e", "-c", offline], {
      ...{ cwd: work, encoding: "utf8", env: { ...process.env, PATH } },
    });
    expect(status, stderr).toBe(0);
  });

  it("has commands for each of the three", () => expect(lines.length).toBeGreaterThanOrEqual(5));
});
