/** The card of what was converted: the command in it makes the same files, and it says no more than its certificate. */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { library } from "../../bin/on-demand.ts";
import { decodeCertificate, encodeCertificate, sealCertificate } from "../../src/certificate/certificate.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { sha256 } from "../../src/core/hash.ts";
import { run } from "../support/fake-library.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { filesOn, put } from "../support/hub/fake.ts";
import { putFolder, world } from "../support/hub/world.ts";
import { shell } from "../support/program.ts";

const work = workFolder();
const here = world(work);
const REPO = "me/mine";

beforeEach(() => {
  Object.assign(process.env, here.env, { HF_TOKEN: "hf_right" });
  here.hub.repositories.clear();
  here.hub.objects.clear();
  mkdirSync(here.home, { recursive: true });
});

const isologit = (...argv: readonly string[]) => run([...argv, "--json"], { over: library });

/** Converts, with so much of a proof as a certificate needs. @returns where it is */
async function convertTo(name: string, source: string, ...flags: readonly string[]): Promise<string> {
  const out = join(here.home, name);
  const { status, stdout, stderr } = await isologit("convert", source, out, ...flags, "--verify", "bytes");
  expect(status, stdout + stderr).toBe(0);
  return out;
}

/** Uploads, and reads the card that came of it. */
async function cardOf(path: string, ...flags: readonly string[]) {
  const { status, stdout, json } = await isologit("upload", REPO, path, ...flags);
  expect(status, stdout).toBe(0);
  const text = filesOn(here.hub, REPO).get("README.md")!.content.bytes().toString();
  const [, front, body] = /^---\n([\s\S]*?)---\n([\s\S]*)$/.exec(text)!;
  return {
    report: json(),
    front: parse(front!),
    body: body!,
    script: /makes the same files [^\n]*\n\n```sh\n([\s\S]*?)\n```/.exec(body!)?.[1],
  };
}

/** Runs the last line of a card's script in this process, its files elsewhere; the other lines stay for a shell. */
async function rerun(script: string, source?: string): Promise<string> {
  const line = script.replace("npx isologit ", "").replace(/\bSRC\b/, source ?? "SRC");
  const out = /\.\/out\S*/.exec(line)![0];
  const again = join(here.home, "again", out);
  const { status, stdout } = await isologit(...line.replace(out, again).split(" "), "--verify", "bytes");
  expect(status, stdout).toBe(0);
  return again;
}

describe("the command in the card makes the same files", () => {
  it.each([
    [
      "a recipe and its ends",
      "fp8",
      ["--to", "hf", "--dtype", "fp8-e4m3", "--recipe", "all-linear", "--keep-ends", "1"],
    ],
    [
      "shards of another type",
      "f16",
      ["--to", "hf", "--dtype", "f16", "--allow-overflow", "--max-shard-size", "400kB"],
    ],
    ["ranks", "ranks", ["--to", "megatron", "--tp", "2"]],
    [
      "scales that are calibrated over the bundled text",
      "static",
      [
        "--to",
        "hf",
        "--dtype",
        "fp8-e4m3",
        "--quant-dialect",
        "modelopt",
        "--calibrate",
        "--kv-cache",
        "fp8",
      ],
    ],
  ])("%s", async (_, name, flags) => {
    const out = await convertTo(name, golden("tiny"), ...flags);
    const { script, body } = await cardOf(out);
    expect(body).toContain("SRC is what was converted (hf)");
    expect(filesOf(await rerun(script!, golden("tiny")))).toEqual(filesOf(out));
  });

  it("a packed file, whose certificate is inside", async () => {
    const out = await convertTo(
      "m.isologit",
      golden("tiny"),
      "--dtype",
      "fp8-e4m3",
      "--keep-ends",
      "0",
      "--align",
      "4096",
    );
    const { script, front, report } = await cardOf(out);
    expect([front.library_name, front.tags]).toEqual(["isologit", ["isologit", "nemotron-h", "fp8"]]);
    expect(report).toMatchObject({ card: true, verdict: "within" });
    const [again, first] = [readFileSync(await rerun(script!, golden("tiny"))), readFileSync(out)];
    expect(sha256(again)).toBe(sha256(first));
  });

  it("scales that are calibrated over a file", async () => {
    const ids = join(here.home, "ids.json");
    writeFileSync(ids, "[5, 9, 77]");
    const flags = ["--to", "hf", "--dtype", "fp8-e4m3", "--calibrate", ids, "--calibrate-rule", "mse"];
    const out = await convertTo("static", golden("tiny"), ...flags);
    const { script, body } = await cardOf(out);
    expect(body).toContain("PROMPT is the text of the calibration");
    expect(body).not.toContain(ids);
    expect(filesOf(await rerun(script!.replace("PROMPT", ids), golden("tiny")))).toEqual(filesOf(out));
  });

  it("side files and vocabulary that are missing in the source", async () => {
    const [source, like] = [golden("nemo2-tp2"), golden("nemo2-tiny/hf")];
    const out = await convertTo("home", source, "--to", "hf", "--like", like);
    const { script, body } = await cardOf(out);
    expect(body).toContain(
      "SRC is what was converted (nemo2); LIKE is the checkpoint whose side files were taken",
    );
    expect(filesOf(await rerun(script!.replace("LIKE", like), source))).toEqual(filesOf(out));
  });

  it("from the Hub: pinned to its commit, as printed, in a shell, with a recipe file", async () => {
    const commit = putFolder(here.hub, "nvidia/Base", golden("tiny"));
    const recipe = join(here.home, "mine.yaml");
    writeFileSync(recipe, "id: mine\ncast: [mlp.*]\nkeep_layers: [1]\nkeep_ends: 3\n");
    const flags = ["--to", "hf", "--dtype", "fp8-e4m3", "--recipe", recipe, "--keep-ends", "0"];
    const out = await convertTo("fp8", "hf://nvidia/Base", ...flags);
    put(here.hub, "nvidia/Base", { "config.json": Buffer.from("{}") });
    const { front, body, script } = await cardOf(out);
    expect([front.base_model, front.base_model_relation]).toEqual(["nvidia/Base", "quantized"]);
    expect(script).toContain(`npx isologit convert hf://nvidia/Base@${commit} ./out --to hf`);
    expect(body).not.toContain("SRC");
    const folder = join(here.home, "shell");
    mkdirSync(folder);
    const line = script!.replace("npx isologit", "isologit");
    const { status, stderr } = await shell(line, { cwd: folder, env: { ...process.env, ...here.env } });
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    expect(filesOf(join(folder, "out"))).toEqual(filesOf(out));
    expect(filesOf(out).size).toBeGreaterThan(5);
  });
});

describe("the verification in a card", () => {
  /** An exact copy with its certificate, made once. */
  let made: string | undefined;
  const certified = async () => {
    const [out, kept] = [join(here.home, "out"), join(work, "certified")];
    if (made === undefined)
      cpSync(await convertTo("out", golden("tiny"), "--to", "hf"), kept, { recursive: true });
    else cpSync(made, out, { recursive: true });
    made = kept;
    return out;
  };

  it("the verdict of the certificate, if the certificate is valid", async () => {
    const out = await convertTo(
      "fp8",
      golden("tiny"),
      "--to",
      "hf",
      "--dtype",
      "fp8-e4m3",
      "--keep-ends",
      "0",
    );
    const { front, body, report } = await cardOf(out, "--base-model", "nvidia/Base");
    expect(report.verdict).toBe("within");
    expect(front).toEqual({
      base_model: "nvidia/Base",
      base_model_relation: "quantized",
      library_name: "transformers",
      pipeline_tag: "text-generation",
      tags: ["isologit", "nemotron-h", "fp8"],
    });
    const { sha256: digest } = JSON.parse(readFileSync(join(out, CERTIFICATE_FILE), "utf8"));
    expect(body).toContain("# mine\n");
    expect(body).toContain(
      "npx isologit convert hf://nvidia/Base ./out --to hf --dtype fp8-e4m3 --keep-ends 0\n",
    );
    expect(body).toContain("It rounded 14 weights from BF16 to F8_E4M3; every bit of the others was kept.");
    expect(body).toMatch(/The weights take \d+\.\d KiB, and 486\.0 KiB before\./);
    expect(body).toContain("No forward pass ran. It was not measured how well the model answers");
    expect(body).toContain("vllm serve me/mine\n");
    expect(body).not.toContain("trtllm-serve"); // it reads no compressed-tensors
    expect(body).toMatch(
      new RegExp(`Verdict: within\\*\\*, by isologit \\S+\\. Its certificate has SHA-256 \`${digest}\``),
    );
    expect(body).toMatch(/\| bytes \| within \| .*roles \d+/);
  });

  it("the upload verifies by its certificate, including the new card", async () => {
    const source = join(here.home, "source");
    cpSync(golden("tiny"), source, { recursive: true });
    writeFileSync(join(source, "README.md"), "---\nlicense: mit\n---\n# Mine\n");
    const out = await convertTo("out", source, "--to", "hf");
    await cardOf(out);
    const { report } = await cardOf(out, "--base-model", "nvidia/Base"); // the second finds the first's card
    expect(report.verdict).toBe("same");
    const { status, json } = await isologit("verify", `hf://${REPO}`, "--verify", "bytes", "--strict");
    expect([status, json().verdict]).toEqual([0, "same"]);
    expect(json().findings).toEqual([expect.stringContaining("README.md")]);
  });

  it.each<[string, (folder: string) => void, string]>([
    [
      "a weight changed since",
      (folder) => flip(join(folder, "model.safetensors")),
      "the certificate is not of these files",
    ],
    [
      "a side file changed since",
      (folder) => writeFileSync(join(folder, "tokenizer_config.json"), "{}"),
      "tokenizer_config.json",
    ],
    [
      "its text edited",
      (folder) => edit(folder, (text) => text.replace('"same"', '"within"')),
      "its text is not the text that was sealed",
    ],
    ["no certificate at all", (folder) => edit(folder, () => "{}"), "not a certificate of this version"],
  ])("a certificate that does not hold stops the upload: %s", async (_, change, message) => {
    const out = await certified();
    change(out);
    const { status, json } = await isologit("upload", REPO, out);
    expect(status).toBe(3);
    expect(json().error).toMatchObject({
      code: "CERTIFICATE_INVALID",
      message: expect.stringContaining(message),
    });
    expect(filesOn(here.hub, REPO).size).toBe(0);
    rmSync(join(out, CERTIFICATE_FILE));
    expect((await cardOf(out)).body).toContain("Nothing was proved of them.");
  });

  it("no command if an older certificate does not record the options", async () => {
    const out = await convertTo(
      "fp8",
      golden("tiny"),
      "--to",
      "hf",
      "--dtype",
      "fp8-e4m3",
      "--keep-ends",
      "0",
    );
    edit(out, (text) => {
      const { sha256: _, conversion: __, ...body } = decodeCertificate(Buffer.from(text), CERTIFICATE_FILE);
      return encodeCertificate(sealCertificate(body));
    });
    const { script, body } = await cardOf(out);
    expect([script, body]).toEqual([undefined, expect.stringContaining("does not say with which options")]);
  });

  it.each([
    { conversion: { recipe: "x; rm -rf ~" } },
    { conversion: { like: "hf://a/b`id`" } },
    { source: { address: "hf://a/b$(id)" } },
    {
      conversion: {
        recipe: {
          id: "x",
          keep_ends: 0,
          cast: ["EOF\nid"],
          keep: [],
          keep_layers: [],
          keep_mamba_before_attention: false,
        },
      },
    },
  ])("nothing for a shell comes out of a certificate: %j", async (change: Record<string, object>) => {
    const out = await certified();
    edit(out, (text) => {
      const { sha256: _, ...body } = decodeCertificate(Buffer.from(text), CERTIFICATE_FILE);
      const [[key, value]] = Object.entries(change) as [["source", object]];
      return encodeCertificate(sealCertificate({ ...body, [key]: { ...body[key], ...value } }));
    });
    const { status, json } = await isologit("upload", REPO, out);
    expect([status, json().error.code]).toEqual([3, "CERTIFICATE_INVALID"]);
  });

  it("with a forward pass: its measures beside their limits, in plain words and for the Hub", async () => {
    const out = join(here.home, "proved");
    const flags = [
      "--to",
      "hf",
      "--dtype",
      "fp8",
      "--quant-dialect",
      "modelopt",
      "--calibrate",
      "--tokens",
      "9",
      "--kl",
      "0.5",
    ];
    const { status, stdout } = await isologit("convert", golden("tiny"), out, ...flags);
    expect(status, stdout).toBe(0);
    const mine = { name: "Base", results: [{ dataset: { type: "mmlu", name: "MMLU" } }] };
    writeFileSync(join(out, "README.md"), `---\nmodel-index: ${JSON.stringify([mine])}\n---\n# Mine\n`);
    for (const _ of ["once", "again"]) {
      const { front, body } = await cardOf(out, "--license", "other", "--base-model", "nvidia/Base");
      expect(front).toMatchObject({ license: "other", base_model: "nvidia/Base" });
      const [theirs, ours, ...more] = front["model-index"];
      expect([theirs, more]).toEqual([mine, []]);
      expect(ours).toMatchObject({ name: "mine", results: [{ task: { type: "text-generation" } }] });
      const [kl, top1] = ours.results[0].metrics.map((metric: { value: number }) => metric.value);
      expect(kl).toBeGreaterThan(0);
      expect(top1).toBeLessThanOrEqual(1);
      expect(body).toMatch(
        /on the same 9 tokens, each with its own tensors: the mean KL .* nats \(limit 0\.5\)/,
      );
      expect(body).toContain("trtllm-serve me/mine");
    }
  });

  it("no size before where other weights had the new type already", async () => {
    const out = await convertTo("part", golden("tiny"), "--to", "hf", "--dtype", "fp8");
    expect((await cardOf(out)).body).toMatch(/ KiB, and \S+ KiB before\./);
    edit(out, (text) => {
      const { sha256: _, ...body } = decodeCertificate(Buffer.from(text), CERTIFICATE_FILE);
      return encodeCertificate(sealCertificate({ ...body, recast: { "BF16 to F8_E4M3": 1 } }));
    });
    expect((await cardOf(out)).body).not.toContain(" before.");
  });

  it("asks for what readers look for first", async () => {
    const out = await certified();
    const { stderr } = await isologit("upload", REPO, out);
    expect(stderr).toContain("the model card names no licence: give --license");
    expect(stderr).toContain("the model card names no base model: give --base-model");
    const refused = await isologit("upload", REPO, out, "--license", "Apache 2.0!");
    expect(refused.json().error.code).toBe("USAGE");
    const told = await isologit("upload", REPO, out, "--license", "apache-2.0", "--base-model", "a/b");
    expect(told.stderr).not.toContain("the model card names no");
  });

  it("metrics cannot break the table", async () => {
    const out = await certified();
    edit(out, (text) => {
      const { sha256: _, ...body } = decodeCertificate(Buffer.from(text), CERTIFICATE_FILE);
      const rungs = [{ rung: "cover", verdict: "same", metrics: { "a|b": "c\n# d <script>" } }] as const;
      return encodeCertificate(sealCertificate({ ...body, rungs, tool: "x\n# y" }));
    });
    const { body } = await cardOf(out);
    expect(body).toContain("| cover | same | a b c # d  script  |");
    expect(body).toContain("by x # y.");
  });
});

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length - 7]! ^= 0x10;
  writeFileSync(path, bytes);
}

function edit(folder: string, change: (text: string) => string | Uint8Array): void {
  const path = join(folder, CERTIFICATE_FILE);
  writeFileSync(path, change(readFileSync(path, "utf8")));
}
