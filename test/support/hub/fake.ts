/**
 * A Hub on loopback, in two servers as the real one: what it knows, and where large files lie. It speaks as much as
 * @huggingface/hub and Python's huggingface_hub ask, remembers every request, and goes wrong where it is told to.
 */
import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Asked, type Fault, type Plan, sendBody } from "./faults.ts";
import {
  type Content,
  commit,
  contentOf,
  etagOf,
  type Files,
  newRepository,
  oidOf,
  type Repository,
  treeEntry,
} from "./repository.ts";

export interface Seen extends Asked {
  status: number;
  /** of the body, as far as it was sent */
  bytes: number;
}

export interface FakeHub extends AsyncDisposable {
  readonly url: string;
  readonly storageUrl: string;
  readonly repositories: Map<string, Repository>;
  /** LFS content by SHA-256, committed or not */
  readonly objects: Map<string, Content>;
  readonly seen: Seen[];
  /** the tokens that may see private and gated repositories, and write */
  readonly tokens: Set<string>;
  plan: Plan;
  /** more than this much in one PUT is not taken: it goes in parts */
  partBytes: number;
  /** files on one page of a listing */
  pageFiles: number;
}

/** Content types as Hub's rules make them: by ending, and by size. */
const isLarge = (path: string, size: number) =>
  /\.(safetensors|isologit|bin|nemo|gguf|distcp|pt)$/.test(path) || size > 10e6;

export async function fakeHub(): Promise<FakeHub> {
  const hub = { partBytes: Number.POSITIVE_INFINITY, pageFiles: 100 } as FakeHub & {
    url: string;
    storageUrl: string;
  };
  Object.assign(hub, {
    repositories: new Map(),
    objects: new Map(),
    seen: [],
    tokens: new Set(["hf_right"]),
    plan: () => undefined,
  });
  const parts = new Map<string, Buffer>();
  const hubServer = serve(hub, "hub", (call) => answerHub(hub, call));
  const storage = serve(hub, "storage", (call) => answerStorage(hub, parts, call));
  hub.url = await listening(hubServer);
  hub.storageUrl = await listening(storage);
  hub[Symbol.asyncDispose] = async () => {
    for (const server of [hubServer, storage]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  };
  return hub;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly seen: Seen;
  readonly fault: Fault | undefined;
}

function serve(hub: FakeHub, name: "hub" | "storage", answer: (call: Call) => Promise<void>): Server {
  return createServer((request, response) => {
    const { method = "GET", url = "/" } = request;
    const { range, authorization } = request.headers;
    const seen: Seen = { server: name, method, url, range, authorization, status: 0, bytes: 0 };
    hub.seen.push(seen);
    const fault = hub.plan(seen);
    if (fault?.kind === "refuse") return void request.socket.destroy();
    response.on("close", () => {
      seen.status = response.statusCode;
    });
    if (fault?.kind === "status") {
      const { status, retryAfter, code } = fault;
      request.resume();
      response.writeHead(status, {
        ...(retryAfter && { "retry-after": retryAfter }),
        ...(code && { "x-error-code": code }),
      });
      return void response.end("no");
    }
    answer({ request, response, url: new URL(url, "http://fake"), seen, fault }).catch((error) => {
      response.destroy(error);
    });
  });
}

async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Puts files on a branch, each in LFS or not as the Hub would decide. @returns the commit */
export function put(
  hub: FakeHub,
  name: string,
  files: Readonly<Record<string, Uint8Array | Content>>,
  branch = "main",
): string {
  const repository = hub.repositories.get(name) ?? newRepository(name);
  hub.repositories.set(name, repository);
  const before = repository.commits.get(repository.refs.get(branch) ?? "")?.files ?? new Map();
  const added = Object.entries(files).map(([path, given]) => {
    const content = given instanceof Uint8Array ? contentOf(given) : given;
    const lfs = isLarge(path, content.size);
    if (lfs) hub.objects.set(content.sha256, content);
    return [path, { content, lfs }] as const;
  });
  return commit(repository, branch, new Map([...before, ...added]), `put ${Object.keys(files).join(", ")}`);
}

/** What a branch holds. */
export function filesOn(hub: FakeHub, name: string, branch = "main"): Files {
  const repository = hub.repositories.get(name)!;
  return repository.commits.get(repository.refs.get(branch)!)!.files;
}

function refuse({ response }: Call, status: number, code: string, message = code): void {
  response.writeHead(status, {
    "x-error-code": code,
    "x-error-message": message,
    "content-type": "application/json",
  });
  response.end(JSON.stringify({ error: message }));
}

function say({ response, seen }: Call, value: unknown, headers: Record<string, string> = {}): void {
  const text = JSON.stringify(value);
  seen.bytes += text.length;
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(text);
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function answerHub(hub: FakeHub, call: Call): Promise<void> {
  const { request, url } = call;
  const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
  const token = request.headers.authorization?.replace(/^Bearer /, "");
  if (token !== undefined && !hub.tokens.has(token)) {
    return refuse(call, 401, "", "Invalid credentials in Authorization header");
  }
  if (url.pathname === "/api/whoami-v2") {
    if (token === undefined) return refuse(call, 401, "", "Invalid username or password.");
    return say(call, {
      type: "user",
      name: "owner",
      fullname: "Owner",
      orgs: [],
      auth: { type: "access_token", accessToken: { displayName: "t", role: "write" } },
    });
  }
  if (url.pathname === "/api/repos/create") return await create(hub, call, token);
  if (url.pathname === "/api/validate-yaml") return say(call, { errors: [], warnings: [] });
  const api = parts[0] === "api" && parts[1] === "models" ? parts.slice(2) : undefined;
  const [owner = "", last = "", verb = "", ...rest] = api ?? parts;
  const name = `${owner}/${last.replace(/\.git$/, "")}`;
  const repository = hub.repositories.get(name);
  const mayWrite = token !== undefined;
  if (repository === undefined || (repository.private && !mayWrite))
    return refuse(call, 401, "RepoNotFound", "Repository not found");
  if (last.endsWith(".git")) return await lfsBatch(hub, call);
  if (request.method === "POST" && verb !== "paths-info" && !mayWrite)
    return refuse(call, 401, "", "Invalid username or password.");
  const revision =
    verb === "resolve" || verb === "tree" || verb === "revision" || verb === "paths-info"
      ? revisionIn(repository, rest)
      : undefined;
  switch (api === undefined ? verb : `api ${verb}`) {
    case "api ":
    case "api revision": {
      const at = verb === "" ? { commit: repository.refs.get("main")!, rest: [] } : revision;
      if (at === undefined) return refuse(call, 404, "RevisionNotFound");
      const siblings = [...repository.commits.get(at.commit)!.files.keys()].map((rfilename) => ({
        rfilename,
      }));
      return say(call, {
        _id: "1",
        id: name,
        modelId: name,
        sha: at.commit,
        private: repository.private,
        gated: repository.gated,
        downloads: 0,
        likes: 0,
        tags: [],
        siblings,
        lastModified: "2025-01-01T00:00:00.000Z",
      });
    }
    case "api tree": {
      if (revision === undefined) return refuse(call, 404, "RevisionNotFound");
      return listTree(hub, call, repository.commits.get(revision.commit)!.files);
    }
    case "api paths-info": {
      if (revision === undefined) return refuse(call, 404, "RevisionNotFound");
      const { files } = repository.commits.get(revision.commit)!;
      const text = (await bodyOf(request)).toString();
      const paths: string[] = text.startsWith("{")
        ? JSON.parse(text).paths
        : new URLSearchParams(text).getAll("paths");
      return say(
        call,
        paths.flatMap((path) => (files.has(path) ? [treeEntry(path, files.get(path)!)] : [])),
      );
    }
    case "api preupload": {
      const { files } = JSON.parse((await bodyOf(request)).toString());
      const answers = files.map(({ path, size }: { path: string; size: number }) => ({
        path,
        uploadMode: isLarge(path, size) ? "lfs" : "regular",
        shouldIgnore: false,
        oid: null,
      }));
      return say(call, { files: answers });
    }
    case "api branch": {
      repository.refs.set(rest.join("/"), repository.refs.get("main")!);
      return say(call, { success: true });
    }
    case "api commit":
      return await receiveCommit(hub, call, repository, decodeURIComponent(rest.join("/")));
    case "resolve": {
      if (revision === undefined) return refuse(call, 404, "RevisionNotFound");
      if (repository.gated && !mayWrite)
        return refuse(call, 401, "GatedRepo", "Access to this model is restricted");
      return await resolveFile(hub, call, repository, revision);
    }
    default:
      return refuse(call, 404, "NotFound");
  }
}

function revisionIn(repository: Repository, rest: readonly string[]) {
  const size = rest[0] === "refs" ? 3 : 1;
  const wanted = rest.slice(0, size).join("/");
  const oid =
    repository.refs.get(wanted === "HEAD" ? "main" : wanted) ??
    (repository.commits.has(wanted) ? wanted : undefined);
  return oid === undefined ? undefined : { commit: oid, rest: rest.slice(size) };
}

function listTree(hub: FakeHub, call: Call, files: Files): void {
  const { url } = call;
  const all = [...files].map(([path, entry]) => treeEntry(path, entry));
  const from = Number(url.searchParams.get("cursor") ?? 0);
  const next = from + hub.pageFiles;
  url.searchParams.set("cursor", String(next));
  const link = next < all.length ? { link: `<${hub.url}${url.pathname}${url.search}>; rel="next"` } : {};
  say(call, all.slice(from, next), link as Record<string, string>);
}

async function resolveFile(
  hub: FakeHub,
  call: Call,
  repository: Repository,
  at: { commit: string; rest: readonly string[] },
): Promise<void> {
  const { response, fault } = call;
  const entry = repository.commits.get(at.commit)!.files.get(at.rest.join("/"));
  if (entry === undefined) {
    response.setHeader("x-repo-commit", at.commit);
    return refuse(call, 404, "EntryNotFound", "Entry not found");
  }
  const etag = fault?.kind === "etag" ? fault.etag : etagOf(entry);
  const common = { "x-repo-commit": at.commit, etag: `"${etag}"` };
  if (!entry.lfs) return await sendContent(call, entry.content, common);
  const size = fault?.kind === "size" ? fault.size : entry.content.size;
  const location = `${hub.storageUrl}/objects/${entry.content.sha256}?signature=${randomBytes(8).toString("hex")}`;
  response.writeHead(302, {
    ...common,
    location,
    "x-linked-etag": `"${etag}"`,
    "x-linked-size": String(size),
    "content-length": "0",
  });
  response.end();
}

async function sendContent(call: Call, content: Content, headers: Record<string, string>): Promise<void> {
  const { request, response, seen, fault } = call;
  const given = fault?.kind === "whole" ? null : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const by = fault?.kind === "shift" ? fault.by : 0;
  const start = given === null ? 0 : Number(given[1]) + by;
  const end =
    given === null
      ? content.size
      : Math.min(given[2] === "" ? content.size : Number(given[2]) + 1 + by, content.size);
  if (given !== null && start >= content.size) {
    response.writeHead(416, { ...headers, "content-range": `bytes */${content.size}` }).end();
    return;
  }
  const total = fault?.kind === "size" ? fault.size : content.size;
  const length = fault?.kind === "truncate" ? Math.min(fault.to, end - start) : end - start;
  response.writeHead(given === null ? 200 : 206, {
    ...headers,
    "accept-ranges": "bytes",
    "content-length": String(length),
    ...(given !== null && { "content-range": `bytes ${start}-${end - 1}/${total}` }),
  });
  if (request.method === "HEAD") return void response.end();
  await sendBody(response, content.stream(start, end), fault, (bytes) => {
    seen.bytes += bytes;
  });
}

async function answerStorage(hub: FakeHub, parts: Map<string, Buffer>, call: Call): Promise<void> {
  const { request, response, url, seen } = call;
  const [, verb, oid = "", part] = url.pathname.split("/");
  const content = hub.objects.get(oid);
  if (verb === "objects" && content !== undefined)
    return await sendContent(call, content, { etag: '"storage"' });
  const body = await bodyOf(request);
  seen.bytes += body.byteLength;
  if (verb === "parts") {
    parts.set(`${oid}/${part}`, body);
    return void response.writeHead(200, { etag: `"${part}"` }).end();
  }
  const whole =
    verb === "complete"
      ? Buffer.concat(
          JSON.parse(body.toString()).parts.map(
            (one: { partNumber: number }) => parts.get(`${oid}/${one.partNumber}`)!,
          ),
        )
      : body;
  const sent = contentOf(whole);
  if (sent.sha256 !== oid) return void response.writeHead(400).end("digest");
  hub.objects.set(oid, sent);
  response.writeHead(200, { etag: '"whole"' }).end("{}");
}

async function create(hub: FakeHub, call: Call, token: string | undefined): Promise<void> {
  if (token === undefined) return refuse(call, 401, "", "Invalid username or password.");
  const {
    name,
    organization,
    visibility,
    private: hidden,
  } = JSON.parse((await bodyOf(call.request)).toString());
  const id = `${organization ?? "owner"}/${name}`;
  if (hub.repositories.has(id)) {
    call.response.writeHead(409, { "content-type": "application/json" });
    return void call.response.end(
      JSON.stringify({ error: "You already created this model repo", url: `${hub.url}/${id}` }),
    );
  }
  const repository = newRepository(id);
  repository.private = hidden === true || visibility === "private";
  hub.repositories.set(id, repository);
  say(call, { url: `${hub.url}/${id}`, name: id, id });
}

async function lfsBatch(hub: FakeHub, call: Call): Promise<void> {
  const { objects } = JSON.parse((await bodyOf(call.request)).toString());
  const answers = objects.map(({ oid, size }: { oid: string; size: number }) => {
    if (hub.objects.has(oid)) return { oid, size };
    const count = Math.ceil(size / hub.partBytes);
    if (count <= 1) return { oid, size, actions: { upload: { href: `${hub.storageUrl}/whole/${oid}` } } };
    const header: Record<string, string> = { chunk_size: String(hub.partBytes) };
    for (let i = 1; i <= count; i++)
      header[String(i).padStart(5, "0")] = `${hub.storageUrl}/parts/${oid}/${i}?signature=1`;
    return { oid, size, actions: { upload: { href: `${hub.storageUrl}/complete/${oid}`, header } } };
  });
  say(call, {
    transfer: hub.partBytes === Number.POSITIVE_INFINITY ? "basic" : "multipart",
    objects: answers,
  });
}

/** All of it, or nothing: an LFS file that was never sent is refused. */
async function receiveCommit(
  hub: FakeHub,
  call: Call,
  repository: Repository,
  branch: string,
): Promise<void> {
  const lines = (await bodyOf(call.request))
    .toString()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
  const pull = call.url.searchParams.get("create_pr") === "1";
  const base = repository.refs.get(branch);
  if (base === undefined) return refuse(call, 404, "RevisionNotFound");
  const files = new Map(repository.commits.get(base)!.files);
  for (const { key, value } of lines) {
    if (key === "file")
      files.set(value.path, {
        content: contentOf(Buffer.from(value.content, value.encoding ?? "utf8")),
        lfs: false,
      });
    if (key === "deletedFile") files.delete(value.path);
    if (key !== "lfsFile") continue;
    const content = hub.objects.get(value.oid);
    if (content === undefined) return refuse(call, 400, "LfsMissing", `${value.path} was not sent`);
    files.set(value.path, { content, lfs: true });
  }
  const number = [...repository.refs.keys()].filter((ref) => ref.startsWith("refs/pr/")).length + 1;
  const target = pull ? `refs/pr/${number}` : branch;
  if (pull) repository.refs.set(target, base);
  const oid = commit(repository, target, files, lines[0].value.summary);
  const pullRequestUrl = pull
    ? { pullRequestUrl: `${hub.url}/${repository.name}/discussions/${number}` }
    : {};
  say(call, {
    success: true,
    commitOid: oid,
    commitUrl: `${hub.url}/${repository.name}/commit/${oid}`,
    hookOutput: "",
    ...pullRequestUrl,
  });
}

export { oidOf };
