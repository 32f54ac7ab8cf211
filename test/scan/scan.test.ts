/** What scan finds: each trap, by name and place; nothing in what real software wrote; and it runs none of it. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { deflateRawSync, gzipSync } from "node:zlib";
import { afterEach, describe, expect, it } from "vitest";
import { scan } from "../../src/api/scan.ts";
import type { Finding } from "../../src/core/finding.ts";
import { golden, workFolder } from "../support/goldens.ts";

const hostile = new URL("../../fixtures/hostile/pickles/", import.meta.url).pathname;
const { cases } = JSON.parse(readFileSync(join(hostile, "manifest.json"), "utf8")) as {
  cases: { file: string; expect: string; why: string }[];
};
const work = workFolder();
const MARKER = "ISOLOGIT_PWNED";

afterEach(() => {
  for (const folder of [process.cwd(), work, "/tmp", hostile])
    expect(existsSync(join(folder, MARKER))).toBe(false);
});

/** Faults of a whole checkpoint, which only its reader can see: each part of it is sound. */
const OF_THE_WHOLE = /^(dcp-(?!os-system|truncated).*|tar-no-config\.nemo)$/;

describe("every trap", () => {
  it.each(cases)("$file: $expect, $why", async ({ file, expect: wanted }) => {
    const before = process.cpuUsage();
    const report = await scan(join(hostile, file), { keepGoing: true });
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000, "ms of processor time").toBeLessThan(2000);
    expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
    if (wanted === "ok" || wanted === "no-pollution") expect(report).toEqual({ ok: true, findings: [] });
    if (wanted === "refuse") expect(report.ok).toBe(OF_THE_WHOLE.test(file));
    for (const { at } of report.findings)
      expect(at.file.startsWith(file) || file.startsWith("dcp-")).toBe(true);
  });

  it.each([
    ["reduce-os-system.pt", "pickle-danger", "os.system"],
    ["inst-opcode.pt", "pickle-danger", "os.system"],
    ["newobj-ex-unknown.pt", "pickle-danger", "subprocess.Popen"],
    ["dotted-global.pt", "pickle-danger", "torch.serialization.os.system"],
    ["getattr-chain.pt", "pickle-danger", "builtins.getattr"],
    ["ext-opcode.pt", "pickle-call", "copyreg.extension_1"],
    ["unknown-global.pt", "pickle-call", "mylib.models.Thing"],
    ["unknown-global-unused.pt", "pickle-import", "mylib.models.Thing"],
    ["raw-pickle-system.pt", "pickle-danger", "os.system"],
    ["zip-duplicate-entry.pt", "pickle-danger", "os.system"],
    ["zip-duplicate-entry.pt", "ambiguous-archive", "archive/data.pkl"],
    ["tar-ckpt-system.nemo", "pickle-danger", "os.system"],
    ["tar-yaml-tag.nemo", "yaml-code", "os.system"],
    ["tar-symlink.nemo", "unsafe-path", "symbolic link"],
    ["dcp-os-system", "pickle-danger", "posix.system"],
    ["empty.pt", "damaged", "TRUNCATED"],
  ])("%s: %s names %s", async (file, rule, named) => {
    const { findings } = await scan(join(hostile, file), { keepGoing: true });
    const found = findings.find((finding) => finding.rule === rule);
    expect(found?.message).toContain(named);
  });

  it("a name's offset is that of the opcode that uses it", async () => {
    const file = join(hostile, "unknown-global-unused.pt");
    const [finding] = (await scan(file)).findings;
    expect(
      readFileSync(file).toString("latin1", finding!.at.offset!).startsWith("cmylib.models\nThing\n"),
    ).toBe(true);
    const member = (await scan(join(hostile, "tar-ckpt-system.nemo"))).findings[0]!;
    expect(member.at.file).toBe("tar-ckpt-system.nemo/model_weights.ckpt");
  });

  it("a folder of all, past what is damaged or up to it", async () => {
    const all = await scan(hostile, { keepGoing: true });
    const first = await scan(hostile);
    expect(all.ok).toBe(false);
    expect(first.ok).toBe(false);
    expect(all.findings.length).toBeGreaterThan(60);
    expect(first.findings).toEqual(all.findings.slice(0, first.findings.length));
    expect(first.findings.at(-1)?.severity).toBe("error");
  });
});

describe("nothing is wrong with what real software wrote", () => {
  it.each(["tiny", "tiny-t5", "sharded", "moe"])("%s has remote code at most", async (name) => {
    const { ok, findings } = await scan(golden(name));
    expect(ok).toBe(true);
    expect(findings.filter(({ rule }) => rule !== "remote-code")).toEqual([]);
  });
});

/** A folder made for one test. */
function folder(name: string, files: Readonly<Record<string, string | Uint8Array>>): string {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(work, name, path, ".."), { recursive: true });
    writeFileSync(join(work, name, path), text);
  }
  return join(work, name);
}
const short = ({ rule, severity, at }: Finding) => `${severity} ${rule} ${at.file}`;
const shown = async (path: string) => (await scan(path, { keepGoing: true })).findings.map(short).sort();

describe("a folder with", () => {
  it("links, programs, code and strangers in it", async () => {
    const path = folder("odd", {
      "config.json": '{"auto_map": {}}',
      "modeling.py": "import os",
      "run.json": "{}",
      "native.so": "\x7fELF",
      "start.md": "#!/bin/sh\n",
      "what.xyz": "?",
      LICENSE: "free",
      "blobs/00": "",
    });
    chmodSync(join(path, "run.json"), 0o755);
    symlinkSync("/etc/hostname", join(path, "vocab.txt"));
    symlinkSync("config.json", join(path, "inside.json"));
    symlinkSync("nowhere", join(path, "dangling.bin"));
    execFileSync("mkfifo", [join(path, "pipe.pt")]);
    expect(await shown(path)).toEqual([
      "error executable native.so",
      "error executable start.md",
      "error remote-code native.so",
      "error special-file pipe.pt",
      "error symlink dangling.bin",
      "error symlink vocab.txt",
      "warning executable run.json",
      "warning remote-code config.json",
      "warning remote-code modeling.py",
      "warning symlink inside.json",
      "warning unexpected-file what.xyz",
    ]);
  });

  it("the links of the Hub's cache", async () => {
    const blob = "0123456789abcdef0123456789abcdef01234567";
    folder("cache", {
      [`blobs/${blob}`]: readFileSync(join(hostile, "reduce-eval.pt")),
      "snapshots/x/config.json": "{}",
    });
    symlinkSync(`../../blobs/${blob}`, join(work, "cache/snapshots/x/pytorch_model.bin"));
    expect(await shown(join(work, "cache/snapshots/x"))).toEqual([
      "danger pickle-danger pytorch_model.bin",
      "note no-checkpoint pytorch_model.bin",
    ]);
  });

  it("configs that call", async () => {
    const path = folder("configs", {
      "model.yaml": "config:\n  _target_: os.system\nother:\n  _target_: nemo.lightning.io.mixin.X\n",
      "io.json": '{"objects": {"a": {"type": {"type": "pyref", "module": "subprocess", "name": "run"}}}}',
      "tags.yml": "a: !!python/object/apply:os.system [id]\n",
    });
    expect(await shown(path)).toEqual([
      "danger config-code io.json",
      "danger config-code model.yaml",
      "danger yaml-code tags.yml",
    ]);
  });

  it("a .distcp in which only a middle entry is bad", async () => {
    const [good, bad] = ["benign-tensor.pt", "reduce-eval.pt"].map((name) =>
      readFileSync(join(hostile, name)),
    );
    const path = folder("dist", { "__0_0.distcp": Buffer.concat([good!, good!, bad!, good!]) });
    const [finding] = (await scan(path)).findings;
    expect(finding).toMatchObject({ rule: "pickle-danger", at: { file: "__0_0.distcp" } });
    const start = 2 * good!.byteLength;
    expect(finding!.at.offset).toBeGreaterThan(start);
    expect(finding!.at.offset).toBeLessThan(start + bad!.byteLength);
  });

  it.each([-5, 0, 100])("a zip with an entry %i bytes behind the start of its directory", async (behind) => {
    const bytes = readFileSync(join(hostile, "benign-tensor.pt"));
    const directory = bytes.readUInt32LE(bytes.byteLength - 22 + 16);
    bytes.writeUInt32LE(directory + behind, directory + 42); // where the first entry's header is said to be
    const path = join(work, `behind-${behind}.pt`);
    writeFileSync(path, bytes);
    const { ok, findings } = await scan(path, { keepGoing: true });
    expect(ok).toBe(false);
    const first = {
      rule: "damaged",
      message: expect.stringContaining("ARCHIVE_INVALID: entry archive/data.pkl"),
    };
    expect(findings[0]).toMatchObject(first);
  });

  it("a .nemo in gzip, and a pickle without an ending", async () => {
    const path = folder("nested", {
      "model.nemo": gzipSync(readFileSync(join(hostile, "tar-ckpt-system.nemo"))),
      "context/0f8fad5b-d9cb-469f-a165-70867728950e": readFileSync(join(hostile, "raw-pickle-system.pt")),
    });
    expect(await shown(path)).toEqual([
      "danger pickle-danger context/0f8fad5b-d9cb-469f-a165-70867728950e",
      "danger pickle-danger model.nemo/model_weights.ckpt",
      `note no-checkpoint ${path}`,
    ]);
  });
});

it("a pickle that other software would inflate is inflated", async () => {
  const pickle = Buffer.from("cos\nsystem\n(S'id'\ntR.");
  const packed = deflateRawSync(pickle);
  const name = Buffer.from("a/data.pkl");
  const local = Buffer.alloc(30);
  local.writeUInt32LE(0x04034b50);
  local.writeUInt16LE(8, 8);
  local.writeUInt16LE(name.byteLength, 26);
  const central = Buffer.alloc(46);
  central.writeUInt32LE(0x02014b50);
  central.writeUInt16LE(8, 10);
  central.writeUInt32LE(packed.byteLength, 20);
  central.writeUInt32LE(pickle.byteLength, 24);
  central.writeUInt16LE(name.byteLength, 28);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(46 + name.byteLength, 12);
  end.writeUInt32LE(30 + name.byteLength + packed.byteLength, 16);
  const path = folder("deflated", { "x.pt": Buffer.concat([local, name, packed, central, name, end]) });
  expect(await shown(path)).toEqual(["danger pickle-danger x.pt", "error damaged x.pt"]);
});

describe("torch's format of before version 1.6", () => {
  const legacy = readFileSync(join(hostile, "benign-legacy-format.pt"));
  const evil = Buffer.from("cos\nsystem\n(S'id'\ntR.");
  /** pickles that this reader refuses and Python runs to the end: an int of 5,000 bytes, then the call */
  const veiled = Buffer.concat([
    Buffer.from([0x80, 2, 0x8b, 0x88, 0x13, 0, 0]),
    Buffer.alloc(5000),
    Buffer.from("0"),
    evil,
  ]);
  const magic = Buffer.from("L119547037146038801333356L\n.");

  it("is sound where it is", async () => {
    expect(await shown(folder("legacy", { "x.pt": legacy, "x.bin": legacy }))).toEqual([]);
  });

  it.each([
    [
      "in its fourth pickle",
      [magic, Buffer.from("I1001\n."), Buffer.from("}."), evil],
      "danger pickle-danger x.bin",
    ],
    ["behind what is refused", [magic, Buffer.from("I1001\n."), veiled], "error limit x.bin"],
    ["in its first pickle, without a header", [evil], "danger pickle-danger x.bin"],
  ])("is caught %s", async (name, pickles, wanted) => {
    expect(await shown(folder(name.replaceAll(" ", "-"), { "x.bin": Buffer.concat(pickles) }))).toContain(
      wanted,
    );
  });
});

it("a path that is not there is no finding", async () => {
  await expect(scan(join(work, "nowhere"))).rejects.toMatchObject({ code: "NOT_FOUND" });
});

it("leaves what it looks at as it was", async () => {
  cpSync(hostile, join(work, "copy"), { recursive: true });
  const listing = () => readdirSync(join(work, "copy"), { recursive: true }).sort();
  const before = listing();
  await scan(join(work, "copy"), { keepGoing: true });
  expect(listing()).toEqual(before);
});

describe("what lies there in place of a checkpoint", () => {
  it("pointers are no files that were looked into", async () => {
    const folder = join(work, "pointers");
    mkdirSync(folder);
    writeFileSync(
      join(folder, "model.safetensors"),
      "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    );
    writeFileSync(join(folder, "config.json"), "{}");
    const { ok, findings } = await scan(folder);
    expect(ok).toBe(true);
    expect(findings.map(({ rule, severity }) => [rule, severity])).toEqual([["not-fetched", "warning"]]);
    expect(findings[0]!.next).toContain("lfs pull");
  });

  it("a checkpoint below is a note", async () => {
    const folder = join(work, "above");
    mkdirSync(folder);
    cpSync(golden("tiny"), join(folder, "final"), { recursive: true });
    const { findings } = await scan(folder);
    expect(findings.find(({ rule }) => rule === "no-checkpoint")).toMatchObject({
      severity: "note",
      message: expect.stringContaining("final (hf)"),
    });
  });
});

describe("chat templates", () => {
  const inGguf = (name: string) => new URL(`../../fixtures/${name}`, import.meta.url).pathname;

  it("in a GGUF are named with their place", async () => {
    const { ok, findings } = await scan(inGguf("gguf/tiny-q8_0.gguf"));
    expect([ok, findings.map(({ rule, severity }) => [rule, severity])]).toEqual([
      true,
      [["chat-template", "note"]],
    ]);
    const { file, offset } = findings[0]!.at;
    const template = readFileSync(inGguf(`gguf/${file}`))
      .subarray(offset!)
      .toString("latin1", 0, 30);
    expect(template).toMatch(/^\{%/);
  });

  it("that reach out of the template are a danger, in a GGUF and beside the weights", async () => {
    const file = inGguf("hostile/gguf/ok-template-code.gguf");
    const { ok, findings } = await scan(file);
    expect([ok, findings.map(({ rule, severity }) => [rule, severity])]).toEqual([
      false,
      [["template-code", "danger"]],
    ]);
    const at = findings[0]!.at.offset!;
    expect(readFileSync(file).toString("latin1", at, at + 10)).toBe(".__class__");
    for (const [i, [text, found]] of (
      [
        ["{{ x['__globals__'] }}", true],
        ["{{ x|attr('y') }}", true],
        ["{{ f.func_globals }}", true],
        [
          "{% for m in messages %}<|__im__|> {{ m['content'] }}: a_globals and __init__ in words{% endfor %}",
          false,
        ],
      ] as const
    ).entries()) {
      const folder = join(work, `template-${i}`);
      mkdirSync(folder);
      writeFileSync(join(folder, "chat_template.jinja"), text);
      expect(
        (await scan(folder)).findings.some(({ rule }) => rule === "template-code"),
        text,
      ).toBe(found);
    }
  });

  it("of a damaged GGUF are not searched: its header is the finding", async () => {
    const { findings } = await scan(inGguf("hostile/gguf/string-length-huge.gguf"));
    expect(findings.map(({ rule }) => rule)).toEqual(["limit"]);
  });
});
