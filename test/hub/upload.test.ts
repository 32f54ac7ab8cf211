/** `upload`: what is sent, in which commits, how a broken one goes on, and that no secret is told. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { type UploadOptions, upload } from "../../src/api/upload.ts";
import type { Event } from "../../src/core/events.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { filesOn, put } from "../support/hub/fake.ts";
import { every, first, type Plan } from "../support/hub/faults.ts";
import { noise, world } from "../support/hub/world.ts";

const work = workFolder();
const here = world(work);
const REPO = "owner/mine";
const TOKEN = "hf_right";
let folder = "";

beforeEach(() => {
  here.hub.repositories.clear();
  here.hub.objects.clear();
  here.hub.partBytes = Number.POSITIVE_INFINITY;
  folder = join(here.home, "folder");
  mkdirSync(join(folder, "sub", ".git"), { recursive: true });
  writeFileSync(join(folder, "notes.txt"), "some notes\n");
  writeFileSync(join(folder, "model.bin"), noise(900_000));
  writeFileSync(join(folder, "sub", "other.bin"), noise(500_000, 2));
  writeFileSync(join(folder, "sub", ".git", "HEAD"), "no");
});

async function send(options: UploadOptions & { path?: string } = {}) {
  const { settings } = await here.connection({ token: TOKEN });
  return await upload(REPO, options.path ?? folder, { settings, ...options });
}

/** The repository holds the folder's files, each with its bytes. */
function whole(branch = "main", below = ""): void {
  const files = filesOn(here.hub, REPO, branch);
  for (const path of ["notes.txt", "model.bin", "sub/other.bin"]) {
    const entry = files.get(below + path);
    expect(entry?.content.bytes().equals(readFileSync(join(folder, path))), path).toBe(true);
    expect(entry?.lfs).toBe(path.endsWith(".bin"));
  }
}

const posts = (pattern: RegExp) =>
  here.hub.seen.filter(({ method, url }) => method !== "GET" && pattern.test(url));
const journals = () =>
  existsSync(join(here.home, "isologit/uploads")) ? readdirSync(join(here.home, "isologit/uploads")) : [];

describe("a path in the repository", () => {
  it("that is another local file is refused: a shell put it in place of a pattern", async () => {
    const pathInRepo = join(folder, "notes.txt");
    await expect(send({ pathInRepo })).rejects.toMatchObject({
      code: "USAGE",
      next: expect.stringMatching(/quotes/),
    });
    expect(here.hub.repositories.size).toBe(0);
  });

  it("may be the file itself, or the name of a folder", async () => {
    const path = join(folder, "notes.txt");
    await send({ path, pathInRepo: path });
    await send({ path, pathInRepo: join(folder, "sub") });
    expect([...filesOn(here.hub, REPO).keys()]).toHaveLength(2);
  });
});

it("creates the repository, sends new files, and nothing twice", async () => {
  const report = await send({ private: true, commitMessage: "All of it" });
  expect(report).toMatchObject({
    repo: REPO,
    revision: "main",
    pullRequest: null,
    card: false,
    bytes: 1_400_011,
    sent: 1_400_011,
  });
  expect(report.files.map(({ path }) => path).sort()).toEqual(["model.bin", "notes.txt", "sub/other.bin"]);
  whole();
  const repository = here.hub.repositories.get(REPO)!;
  expect([repository.private, repository.commits.get(report.commits[0]!)?.title]).toEqual([
    true,
    "All of it",
  ]);
  expect(journals()).toEqual([]);
  here.hub.seen.length = 0;
  expect(await send()).toMatchObject({ commits: [], sent: 0 });
  expect(posts(/./)).toEqual([]);
  writeFileSync(join(folder, "notes.txt"), "OTHER note\n");
  expect((await send()).files.filter(({ sent }) => sent)).toEqual([
    { path: "notes.txt", size: 11, sent: true },
  ]);
  whole();
});

it("large files are sent in parts if the storage asks for it", async () => {
  here.hub.partBytes = 200_000;
  await send();
  expect(posts(/\/parts\//).length).toBe(5 + 3);
  whole();
});

it("several commits in the order of the files", async () => {
  const { commits } = await send({ commitFiles: 1, commitMessage: "Part by part" });
  const { commits: all } = here.hub.repositories.get(REPO)!;
  expect(commits.map((oid) => all.get(oid)?.title)).toEqual(
    [1, 2, 3].map((part) => `Part by part (part ${part} of 3)`),
  );
  whole();
});

describe("targets", () => {
  it("a subfolder, a file under its own name, a file under another name, chosen files", async () => {
    await send({ pathInRepo: "a/b/" });
    whole("main", "a/b/");
    await send({ path: join(folder, "notes.txt") });
    await send({ path: join(folder, "notes.txt"), pathInRepo: "docs/n.txt" });
    await send({ include: ["*.bin"], exclude: ["sub/*"], pathInRepo: "c" });
    expect([...filesOn(here.hub, REPO).keys()].filter((path) => !path.startsWith("a/")).sort()).toEqual([
      "c/model.bin",
      "docs/n.txt",
      "notes.txt",
    ]);
  });

  it("another branch, created if missing; a pull request", async () => {
    await send({ revision: "next" });
    whole("next");
    expect(filesOn(here.hub, REPO).size).toBe(0);
    const { pullRequest } = await send({ createPr: true, commitFiles: 1 });
    expect(pullRequest).toBe(`${here.hub.url}/${REPO}/discussions/1`);
    whole("refs/pr/1");
    expect(filesOn(here.hub, REPO).size).toBe(0);
  });
});

describe("faults", () => {
  it.each<[string, Plan]>([
    ["the storage in trouble", first(3, /^storage PUT/, { kind: "status", status: 503, retryAfter: "0" })],
    ["the storage hangs up", first(3, /^storage PUT/, { kind: "refuse" })],
    ["the Hub in trouble", first(3, /^hub POST .*(preupload|batch|create)/, { kind: "status", status: 500 })],
    ["too many requests", first(3, /^hub/, { kind: "status", status: 429, retryAfter: "0" })],
  ])("%s heals", async (_, plan) => {
    here.hub.plan = plan;
    await send();
    whole();
  });

  it("continues an interrupted commit without sending a file again", async () => {
    here.hub.plan = ({ url }) =>
      here.hub.seen.filter((one) => /\/commit\//.test(one.url)).length > 2 && /\/commit\//.test(url)
        ? { kind: "status", status: 503 }
        : undefined;
    await expect(send({ commitFiles: 1 })).rejects.toMatchObject({ code: "NETWORK", exit: 4 });
    expect([journals().length, filesOn(here.hub, REPO).size]).toEqual([1, 2]);
    here.hub.plan = () => undefined;
    here.hub.seen.length = 0;
    const report = await send({ commitFiles: 1 });
    expect([
      report.commits.length,
      report.files.filter(({ sent }) => sent).length,
      posts(/\/whole\//).length,
    ]).toEqual([1, 1, 0]);
    whole();
    expect(journals()).toEqual([]);
  });

  it("continues an interrupted pull request in the same pull request", async () => {
    here.hub.plan = ({ url }) =>
      /\/commit\/refs%2Fpr/.test(url) ? { kind: "status", status: 503 } : undefined;
    await send();
    writeFileSync(join(folder, "model.bin"), noise(10, 7));
    writeFileSync(join(folder, "notes.txt"), "new");
    await expect(send({ createPr: true, commitFiles: 1 })).rejects.toMatchObject({ code: "NETWORK" });
    here.hub.plan = () => undefined;
    await send({ createPr: true, commitFiles: 1 });
    const refs = [...here.hub.repositories.get(REPO)!.refs.keys()].filter((ref) =>
      ref.startsWith("refs/pr/"),
    );
    expect(refs).toEqual(["refs/pr/1"]);
    whole("refs/pr/1");
  });

  it.each([
    [{ token: "hf_wrong" }, "ACCESS_REFUSED", "does not know this token"],
    [{}, "ACCESS_REFUSED", "needs a token"],
  ])("%j", async (given, code, message) => {
    const { settings } = await here.connection(given);
    const failure = await upload(REPO, folder, { settings }).catch((error) => error);
    expect([failure.code, failure.exit, failure.message]).toEqual([
      code,
      4,
      expect.stringContaining(message),
    ]);
  });

  it("no token in events, in errors, or in requests to the storage", async () => {
    const told: string[] = [];
    const watch = (event: Event) => void told.push(JSON.stringify(event));
    await send({ watch });
    here.hub.plan = every(/^storage/, { kind: "status", status: 403 });
    writeFileSync(join(folder, "new.bin"), noise(1000, 3));
    const failure = await send({ watch }).catch((error) => error);
    told.push(
      JSON.stringify(failure),
      failure.message,
      failure.next,
      String(failure.stack),
      String(failure.cause),
    );
    expect(told.filter((text) => /hf_right|signature=/.test(text))).toEqual([]);
    expect(
      here.hub.seen.some(({ server, authorization }) => server === "storage" && authorization !== undefined),
    ).toBe(false);
  });
});

describe("the card", () => {
  const card = (repo = REPO) => {
    const text = filesOn(here.hub, repo).get("README.md")!.content.bytes().toString();
    const [, front, body] = /^---\n([\s\S]*?)---\n([\s\S]*)$/.exec(text)!;
    return { text, front: parse(front!), body: body! };
  };
  const checkpoint = (more: Readonly<Record<string, string>> = {}) => {
    const path = join(here.home, "model");
    cpSync(golden("tiny"), path, { recursive: true });
    for (const [name, text] of Object.entries(more)) writeFileSync(join(path, name), text);
    return path;
  };

  it("keeps licence, comments, order and body of the source's card, and replaces its own section only", async () => {
    const source =
      "---\n# of the source\nlicense: other\nlicense_name: nvidia-open\ntags:\n- pytorch\n---\n# Base\n\nText of the source.\n\n```\n---\n```\n";
    const path = checkpoint({ "README.md": source });
    await send({ path, baseModel: "nvidia/Base" });
    const one = card();
    expect(
      one.text.startsWith("---\n# of the source\nlicense: other\nlicense_name: nvidia-open\ntags:"),
    ).toBe(true);
    expect(one.front).toEqual({
      license: "other",
      license_name: "nvidia-open",
      tags: ["pytorch", "isologit", "nemotron-h"],
      base_model: "nvidia/Base",
      library_name: "transformers",
      pipeline_tag: "text-generation",
    });
    expect(one.body).toContain("# Base\n\nText of the source.\n\n```\n---\n```\n");
    expect(readFileSync(join(path, "README.md"), "utf8")).toBe(source);
    writeFileSync(join(path, "README.md"), one.text);
    expect((await send({ path, baseModel: "nvidia/Base" })).sent).toBe(0);
    await send({ path, baseModel: "nvidia/Other" });
    expect(card().body.match(/What was proved of these files/g)?.length).toBe(1);
    expect(card().body).toContain("names [nvidia/Other]");
  });

  it("updates the card of the repository if the folder has none", async () => {
    put(here.hub, REPO, { "README.md": Buffer.from("---\nlicense: mit\n---\nWritten by hand.\n") });
    expect(await send({ path: checkpoint() })).toMatchObject({ card: true, verdict: null });
    expect(card().front.license).toBe("mit");
    expect(card().body).toContain("Written by hand.");
    expect(card().body).toContain("No certificate came with them. Nothing was proved of them.");
    expect(card().body).not.toMatch(/[Cc]onverted|Every bit/);
  });

  it("is sent last, and refused if its front matter is broken", async () => {
    await send({ path: checkpoint(), commitFiles: 2 });
    const { commits, refs } = here.hub.repositories.get(REPO)!;
    const before = [...commits.keys()].at(-2)!;
    expect(commits.get(before)!.files.has("README.md")).toBe(false);
    expect(commits.get(refs.get("main")!)!.files.has("README.md")).toBe(true);
    const path = checkpoint({ "README.md": "---\na: [\n---\n" });
    await expect(send({ path })).rejects.toMatchObject({ code: "CONFIG_INVALID", at: { file: "README.md" } });
  });
});
