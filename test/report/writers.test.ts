/** Each form over good, bad and hostile reports. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Ajv } from "ajv";
import type { Log, Result } from "sarif";
import { describe, expect, it } from "vitest";
import { chartOf } from "../../src/report/chart.ts";
import { htmlText } from "../../src/report/html.ts";
import { junitText } from "../../src/report/junit.ts";
import { mdText } from "../../src/report/md.ts";
import { sarifText } from "../../src/report/sarif.ts";
import type { Stopped, Subject } from "../../src/report/subject.ts";
import type { VerifyReport } from "../../src/verify/report.ts";
import { CONVERTED, VERIFIED } from "../support/fake-library.ts";
import { HOSTILE, MANY, SUBJECTS } from "../support/reports.ts";

const each = Object.entries(SUBJECTS);

/**
 * Tags that are opened and closed in order, with quoted attributes: what makes XML well-formed, where there are no
 * comments, sections or instructions. @returns names of elements, in order
 */
function elements(xml: string, empty = /^$/): string[] {
  const [names, open]: [string[], string[]] = [[], []];
  const rest = xml.replace(
    /<(\/?)([a-zA-Z][\w-]*)((?:\s+[\w:-]+(?:="[^"<]*")?)*)\s*(\/?)>/g,
    (_, end, name, _a, own) => {
      if (end) expect(open.pop()).toBe(name);
      else {
        names.push(name);
        if (!own && !empty.test(name)) open.push(name);
      }
      return "";
    },
  );
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]|&(?!(?:amp|lt|gt|quot|#39);)/);
  return names;
}

/** All that no text file should hold: control characters, marks that turn text around, halves of characters. */
const NO_TEXT = /[^\P{C}\n\p{Co}\p{Cn}]|[\ufffe\uffff]/u;

describe("junit", () => {
  it.each(each)("%s is well-formed, and counts its cases", (_, subject) => {
    const xml = junitText(subject);
    expect(xml).not.toMatch(NO_TEXT);
    const names = elements(xml.replace('<?xml version="1.0" encoding="UTF-8"?>', ""));
    const count = (name: string) => names.filter((one) => one === name).length;
    const [, tests, failures, errors, skipped] =
      /<testsuites name="[^"]*" tests="(\d+)" failures="(\d+)" errors="(\d+)" skipped="(\d+)">/.exec(xml)!;
    expect([tests, failures, errors, skipped].map(Number)).toEqual([
      ...[count("testcase"), count("failure"), count("error"), count("skipped")],
    ]);
  });

  it("fails where the verdict is bad, and only there", () => {
    const failing = each.filter(([, subject]) => /<(failure|error) /.test(junitText(subject)));
    expect(failing.map(([name]) => name)).toEqual(["bad", "hostile", "unsafe", "many", "unequal", "stopped"]);
  });

  it("lists findings of a verification with rule and file; an error among them fails", () => {
    const { report } = SUBJECTS.bad as { report: VerifyReport };
    expect(report.findingDetails.map(({ severity }) => severity)).toEqual(["note", "warning"]);
    const found = (xml: string) => xml.match(/<testcase classname="isologit.verify.findings".*/g)!;
    expect(found(junitText(SUBJECTS.bad!))).toEqual([
      expect.stringMatching(
        /name="file-differs, chat_template.jinja"><system-out>chat_template.jinja differs/,
      ),
      expect.stringMatching(/name="weights-untrained"><system-out>/),
    ]);
    const findingDetails = report.findingDetails.map((one) => ({ ...one, severity: "error" as const }));
    const strict = { ...SUBJECTS.bad, report: { ...report, findingDetails } } as Subject;
    expect(found(junitText(strict))[1]).toContain('<failure type="file-differs"');
  });

  it("names cases as the next run does: without verdict, folder and place in a file", () => {
    const names = (subject: Subject) =>
      [...junitText(subject).matchAll(/<testcase classname="([^"]*)" name="([^"]*)"/g)].map(
        ([, group, name]) => `${group}: ${name}`,
      );
    const verdict = "isologit.verify.verdict: verdict";
    expect([names(SUBJECTS.good!)[0], names(SUBJECTS.bad!)[0]]).toEqual([verdict, verdict]);
    const found = (address: string, offset: number): Subject => ({
      ...{ command: "check", address },
      report: {
        ok: false,
        findings: [address, `${address}/a/b.json`, "/elsewhere/c.json"].flatMap((file) => [
          { rule: "damaged", severity: "error" as const, at: { file, tensor: null, offset }, message: "m" },
          { rule: "damaged", severity: "error" as const, at: { file, tensor: "t", offset }, message: "m" },
        ]),
      },
    });
    expect(names(found("/tmp/x1/model", 3))).toEqual(names(found("models/model", 17)));
    expect(names(found("/tmp/x1", 3)).slice(1)).toEqual(
      [
        "damaged",
        "damaged, t",
        "damaged, a/b.json",
        "damaged, a/b.json, t",
        "damaged, c.json",
        "damaged, c.json, t",
      ].map((name) => `isologit.check.problems: ${name}`),
    );
    for (const [, subject] of each) expect(new Set(names(subject)).size).toBe(names(subject).length);
  });

  it("gives the reason as message", () => {
    expect(junitText(SUBJECTS.bad!)).toContain(
      'name="verdict"><failure type="different" message="not the same model"/>',
    );
    expect(junitText(SUBJECTS.unsafe!)).toMatch(/<failure type="pickle-danger" message="[^"]*, at byte 1"/);
  });

  it("gives the time of each rung and, with the verdict, the rest of the run", () => {
    const times = { whole: 2, rungs: { cover: 0.25, logits: 1.25 } };
    const timed = (subject: Subject) =>
      [...junitText(subject, times).matchAll(/name="([^"]*)" time="([^"]*)"/g)].map(([, ...found]) => found);
    expect(timed(SUBJECTS.converted!)).toEqual([
      ["verdict", "0.500"],
      ["cover", "0.250"],
      ["logits", "1.250"],
    ]);
    for (const name of ["unsafe", "unequal", "stopped"])
      expect(timed(SUBJECTS[name]!).map(([, seconds]) => seconds)).toEqual(["0.500"]);
    expect(junitText(SUBJECTS.converted!)).not.toContain("time=");
  });

  it("is bounded, and says so", () => {
    const xml = junitText(SUBJECTS.many!);
    expect(xml.match(/<testcase/g)).toHaveLength(5001);
    expect(xml).toContain("5000 more problems are not listed");
  });
});

const sarif = (name: string, root = "/elsewhere") => {
  const log: Log = JSON.parse(sarifText(SUBJECTS[name]!, root)); // what it may hold, the types say
  const [run] = log.runs;
  return { results: run!.results!, rules: run!.tool.driver.rules!, invocation: run!.invocations![0]! };
};
const placeOf = ({ locations }: Result) => locations![0]!.physicalLocation!;

/** The schema of the standard, from a package of its authors. */
const SARIF_SCHEMA = createRequire(import.meta.url).resolve(
  "@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json",
);
/** Draft 4, which Ajv reads as draft 7 if the schema does not say so; one of its expressions is not for Unicode. */
const { $schema: _draft, id: _id, ...schema } = JSON.parse(readFileSync(SARIF_SCHEMA, "utf8"));
const isSarif = new Ajv({ strict: false, validateFormats: false, unicodeRegExp: false }).compile(schema);

describe("sarif", () => {
  it.each(each)("%s follows the schema of SARIF 2.1.0", (_, subject) => {
    expect(isSarif(JSON.parse(sarifText(subject, "/elsewhere"))), JSON.stringify(isSarif.errors)).toBe(true);
  });

  it.each(each)("%s: rules are found, and fingerprints hold from run to run", (name) => {
    const { results, rules } = sarif(name);
    for (const { id, shortDescription } of rules) {
      expect(id).toMatch(/^[a-z0-9-]+$/);
      expect(shortDescription!.text).not.toBe("");
    }
    for (const { ruleId, ruleIndex, message } of results) {
      expect(rules[ruleIndex!]!.id).toBe(ruleId);
      expect(message.text).not.toBe("");
    }
    const prints = results.map(({ partialFingerprints }) => partialFingerprints!["isologit/v1"]!);
    for (const print of prints) expect(print).toMatch(/^[0-9a-f]{32}:\d+$/);
    expect(new Set(prints).size).toBe(results.length);
    expect(sarif(name).results).toEqual(results);
  });

  it.each(each)("%s: places are relative references, without scheme, root or way out", (name) => {
    for (const { artifactLocation, region } of sarif(name).results.map(placeOf)) {
      expect(artifactLocation!.uri).toMatch(/^(?!\.\.?(\/|$))[^/:?#\s"<>|\\][^:?#\s"<>|\\]*$/);
      expect(artifactLocation!.uriBaseId).toBe("%SRCROOT%");
      expect(region!.startLine).toBe(1);
      expect(region!.byteOffset ?? 0).toBeGreaterThanOrEqual(0);
    }
  });

  it("each command and checkpoint has an id of its own, so that one upload does not replace another", () => {
    const finding = { ok: true, findings: [] };
    const check = (address: string): Subject => ({ command: "check", address, report: finding });
    const idOf = (subject: Subject): string =>
      JSON.parse(sarifText(subject, "/home/me/repo")).runs[0].automationDetails.id;
    expect(idOf(check("models/a"))).toBe("isologit/check/models/a/");
    expect(idOf(check("./models/b/"))).toBe("isologit/check/models/b/");
    expect(idOf({ command: "scan", address: "models/a", report: finding })).toBe("isologit/scan/models/a/");
    expect(idOf(check("/home/me/repo/models/a"))).toBe("isologit/check/models/a/");
    expect(idOf(check("/home/me/elsewhere/a"))).toBe("isologit/check/a/");
    expect(idOf(check("hf://me/a@v1"))).toBe("isologit/check/hf%3A/me/a%40v1/");
  });

  it("a run has the same id if it passes, fails or stops", () => {
    const report = { ...CONVERTED, destination: { ...CONVERTED.destination, path: "./out" } };
    const { error } = (SUBJECTS.stopped as Stopped).report;
    const subjects: readonly Subject[] = [
      { command: "convert", report },
      { command: "convert", report: { ...report, staged: "./out.partial" } },
      { command: "stopped", ran: "convert", addresses: ["a", "./out"], report: { error } },
    ];
    for (const subject of subjects)
      expect(sarifText(subject, "/elsewhere")).toContain('"id": "isologit/convert/out/"');
  });

  it("locations are relative to the root, files inside the checkpoint", () => {
    const uri = (name: string, root?: string) => placeOf(sarif(name, root).results[0]!).artifactLocation!.uri;
    expect(uri("bad")).toBe("models/b");
    expect(uri("many")).toMatch(/^a\//);
    expect(uri("many", "/elsewhere/a/b")).not.toContain("elsewhere");
  });

  it("a finding of a verification lies in its file, under its own rule", () => {
    const { results, rules } = sarif("bad");
    const found = results.find(({ ruleId }) => ruleId === "file-differs")!;
    expect([found.level, placeOf(found).artifactLocation!.uri]).toEqual([
      "warning",
      "models/b/chat_template.jinja",
    ]);
    expect(rules[found.ruleIndex!]!.shortDescription!.text).toBe(
      "A side file differs between the two checkpoints",
    );
    expect(results.find(({ ruleId }) => ruleId === "weights-untrained")!.level).toBe("note");
  });

  it("keeps the gravest 5,000, and says how many are left out", () => {
    const { results, rules, invocation } = sarif("many");
    expect(results).toHaveLength(5000);
    expect(rules[0]!.properties?.tags).toEqual(["security"]);
    expect(invocation.toolExecutionNotifications![0]!.message.text).toContain(String(MANY - 5000));
  });
});

describe("html", () => {
  it.each(each)("%s is closed, refers to nothing outside and carries no one else's mark-up", (_, subject) => {
    const page = htmlText(subject);
    expect(page).not.toMatch(NO_TEXT);
    const body = page.replace(/<(style|script)>.*?<\/\1>/gs, "<$1></$1>").replace("<!doctype html>", "");
    const names = elements(body, /^(meta|br)$/);
    expect(names.filter((name) => name === "script")).toHaveLength(1);
    const known =
      /^(html|head|meta|title|style|body|header|p|h1|h2|h3|dl|dt|dd|main|aside|ol|ul|li|div|table|thead|tbody|tr|th|td|br|span|code|figure|figcaption|svg|g|line|text|circle|rect|polyline|details|summary|q|b|footer|script)$/;
    expect(names.filter((name) => !known.test(name))).toEqual([]);
    expect(body).not.toMatch(/<[^>]*\s(src|href|srcset|action|style|on\w+)=/);
    expect(page.match(/@import|url\(/g)).toBeNull();
    expect(page).toContain("default-src &#39;none&#39;");
  });

  it("shows differences before remarks", () => {
    const page = htmlText(SUBJECTS.bad!);
    const at = ["<h3>Differences", "chat_template.jinja differs", "<h3>Remarks", "the weights are untrained"];
    const places = at.map((text) => page.indexOf(text));
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(places).not.toContain(-1);
  });

  it("draws what there is to see", () => {
    const page = htmlText(SUBJECTS.good!);
    expect(page.match(/<svg/g)).toHaveLength(1);
    expect(htmlText(SUBJECTS.hostile!).match(/<svg/g)).toHaveLength(2);
    expect(page).not.toContain("NaN");
  });

  it("writes the labels of a chart so far apart that the larger letters of a phone fit", () => {
    const labels = Array.from({ length: 30 }, (_, place) => String(1000 + place));
    const series = [{ as: "line" as const, values: labels.map(Number), name: "n" }];
    const { markup } = chartOf({ title: "t", series, labels, axis: "places" });
    const places = [...markup.matchAll(/<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">1\d{3}</g)];
    expect(places.length).toBeGreaterThan(5);
    const width = 4 * 18 * 0.55; // four digits of 18 px, as the style says
    places.reduce((before, [, x]) => {
      expect(Number(x) - before).toBeGreaterThan(width);
      return Number(x);
    }, Number.NEGATIVE_INFINITY);
  });

  it("is bounded", () => {
    expect(htmlText(SUBJECTS.many!).match(/<tr>/g)).toHaveLength(5001);
  });
});

it.each([
  ["html", htmlText],
  ["markdown", mdText],
])("%s has each limit beside what was measured", (_, write) => {
  const text = write(SUBJECTS.good!);
  expect(text).toContain("KL mean at most 0.02 nats (1.2e-4 measured)");
  expect(text).toContain("top-1 at least 95 % (98.44 % measured)");
  expect(text).toContain("wiring at most 1.0e-5 relative L2 (2.4e-7 measured)");
});

it.each([
  ["html", htmlText],
  ["markdown", mdText],
])("%s shows no value beside a limit that decided nothing", (_, write) => {
  const report = { ...VERIFIED, unjudged: ["klMean", "top1"] };
  const text = write({ command: "verify", a: "a", b: "b", report });
  expect(text).toContain("KL mean at most 0.02 nats: not judged");
  expect(text).toContain("top-1 at least 95 %: not judged");
  expect(text).toContain("wiring at most 1.0e-5 relative L2 (2.4e-7 measured)");
});

describe("markdown", () => {
  it.each(each)("%s keeps its tables, and carries no mark-up", (_, subject) => {
    const text = mdText(subject);
    expect(text).not.toMatch(NO_TEXT);
    const prose = text.replace(/(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)/g, ""); // in code, nothing has a meaning
    expect(prose).not.toMatch(/<|https?:|@all/);
    for (const rows of text.split("\n\n").filter((block) => block.startsWith("|"))) {
      const widths = rows
        .trim()
        .split("\n")
        .map((row) => row.split(/(?<!\\)\|/).length);
      expect(new Set(widths).size, rows).toBe(1);
    }
    expect(text.length).toBeLessThan(400_000);
  });

  it("shows differences before remarks, each with rule and file", () => {
    const text = mdText(SUBJECTS.bad!);
    const [difference, note] = [text.indexOf("`file-differs`"), text.indexOf("`weights-untrained`")];
    expect(difference).toBeGreaterThan(0);
    expect(note).toBeGreaterThan(difference);
    expect(text).toContain("| chat_template.jinja differs | `chat_template.jinja` |");
    expect(text).not.toMatch(/&#?\w+;/);
  });

  it("quotes names in more backticks than they have", () => {
    const at = { file: "a``b`", tensor: "x|y", offset: null };
    const finding = { rule: "damaged", severity: "error", at, message: "__init__ *is* | `odd`" } as const;
    const text = mdText({ command: "check", address: "m", report: { ok: false, findings: [finding] } });
    expect(text).toContain("| \\_\\_init\\_\\_ \\*is\\* \\| \\`odd\\` | ``` a``b` ```, `x\\|y` |");
  });
});

it("the hostile text is hostile", () => {
  expect(HOSTILE).toMatch(NO_TEXT);
  expect(() => elements(`<a b="${HOSTILE}"/>`)).toThrow();
});
