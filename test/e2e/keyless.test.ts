/** Signing without a key by the built program, as a CI job does it. The token must never be said or written anywhere. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { type Report, start } from "../support/program.ts";
import { keylessWorld, RUNNER, RUNNER_SECRET, tokenOf } from "../support/verify/keyless-world.ts";

const work = workFolder();
const world = await keylessWorld();
const services = await world.serve();
const who = {
  identity: "https://gitlab.test/us/models//.gitlab-ci.yml@refs/heads/main",
  issuer: "https://gitlab.test",
};
const token = tokenOf(who);
const at = (name: string) => join(work, name);

/** What the program is told of its surroundings, and nothing of where these tests run. */
type Env = Readonly<Record<string, string>>;
const run = async (env: Env, ...args: readonly string[]) => {
  const { PATH } = process.env;
  const ended = await start([...args, "--quiet", "--json"], { env: { PATH, HOME: work, ...env } }).ended;
  const report: Report = JSON.parse(ended.stdout);
  return { ...ended, report };
};
const signing = (name: string, url = services.url) => [
  ...["convert", golden("tiny"), at(name), "--to", "hf", "--verify", "bytes"],
  ...["--sign", "sigstore", "--bundle", at(`${name}.sig`), "--fulcio-url", url, "--rekor-url", url],
];
const trusting = ({ identity, issuer }: typeof who) => {
  const root = at("trusted_root.json");
  writeFileSync(root, world.trustedRoot);
  return ["--trusted-root", root, "--sigstore-identity", identity, "--sigstore-issuer", issuer];
};
const meeting = (name: string, by = who) =>
  run({}, "verify", at(name), "--verify", "bytes", "--bundle", at(`${name}.sig`), ...trusting(by));

describe("who signs", () => {
  it("is who SIGSTORE_ID_TOKEN names, and nothing that is written holds the token", async () => {
    const files = ["--events", at("events.ndjson"), "--report", `html=${at("r.html")},json=${at("r.json")}`];
    const { status, stdout, stderr, report } = await run(
      { SIGSTORE_ID_TOKEN: token },
      ...signing("a"),
      ...files,
    );
    expect([status, stderr]).toEqual([0, ""]);
    expect(report.verification.bundle).toMatchObject({ signedBy: who.identity, issuer: who.issuer });
    expect(readFileSync(at("events.ndjson"), "utf8")).toContain('"phase":"sign"');
    const said = readdirSync(work, { recursive: true, encoding: "utf8", withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), "latin1"));
    for (const text of [stdout, ...said]) expect(text.includes(token.split(".")[1]!)).toBe(false);
    expect((await meeting("a")).report.verdict).toBe("same");
    const stranger = await meeting("a", { ...who, identity: "https://gitlab.test/others" });
    expect([stranger.status, stranger.report.error.code]).toEqual([3, "BUNDLE_UNTRUSTED"]);
  });

  it("is whom GitHub's runner vouches for", async () => {
    const url = `${services.url}/token?api-version=2.0`;
    const env = { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: RUNNER_SECRET };
    const { status, report } = await run(env, ...signing("b"));
    expect([status, report.verification?.bundle]).toEqual([
      0,
      { signedBy: RUNNER.identity, issuer: RUNNER.issuer, files: expect.any(Number) },
    ]);
    expect((await meeting("b", RUNNER)).report.verdict).toBe("same");
    const refused = await run({ ...env, ACTIONS_ID_TOKEN_REQUEST_TOKEN: "other" }, ...signing("c"));
    expect([refused.status, refused.report.error.code]).toEqual([4, "NETWORK"]);
    expect([existsSync(at("c")), existsSync(at("c.sig"))]).toEqual([false, false]);
  });

  it("asks by way of a proxy where there is one", async () => {
    const env = { SIGSTORE_ID_TOKEN: token, HTTP_PROXY: services.url };
    expect((await run(env, ...signing("d", "http://sigstore.invalid"))).status).toBe(0);
  });
});

describe("who cannot sign is told why, with nothing left behind", () => {
  it.each<[string, number, string, Env]>([
    ["nobody vouches", 2, "IDENTITY_MISSING", {}],
    ["offline", 4, "OFFLINE", { SIGSTORE_ID_TOKEN: token, HF_HUB_OFFLINE: "1" }],
    ["a token that is none", 2, "USAGE", { SIGSTORE_ID_TOKEN: "eyJhbGciOiJub25lIn0.secret.c2ln" }],
  ])("%s: %i %s", async (_, exit, code, env) => {
    const { status, stdout, report } = await run(env, ...signing("e"));
    expect([status, report.error.code]).toEqual([exit, code]);
    expect(stdout).not.toMatch(/secret|c2ln/);
    expect(readdirSync(work).filter((name) => name.startsWith("e"))).toEqual(["events.ndjson"]);
  });

  it("a service that is silent does not hold up who interrupts", async () => {
    const silent = await world.serve({ answer: () => "silence" });
    const { PATH } = process.env;
    const env = { PATH, HOME: work, SIGSTORE_ID_TOKEN: token };
    const { child, ended } = start([...signing("f", silent.url), "--quiet"], { env });
    while (silent.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGTERM");
    const { status, stderr } = await ended;
    expect([status, stderr]).toEqual([5, expect.stringMatching(/^INTERRUPTED .*\nnext: .*--resume/)]);
    expect([existsSync(at("f")), existsSync(at("f.partial"))]).toEqual([false, true]);
  });
});
