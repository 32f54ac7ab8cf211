/** `scan`: finds code that other software would execute, and files that a checkpoint should not have. Executes nothing. */

import { readGgufHeader } from "../../formats/codec/gguf/header.ts";
import { MAGIC } from "../../formats/codec/gguf/types.ts";
import { tarStore } from "../../formats/codec/tar/read.ts";
import { readTorch } from "../../formats/codec/torch-zip/read.ts";
import type { FindingsOptions } from "../check/options.ts";
import { nearMissAt } from "../checkpoint/near-misses/recognise.ts";
import { storeAt } from "../checkpoint/store.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding, FindingsReport } from "../core/finding.ts";
import { finding, isOk, nearMiss } from "../core/finding.ts";
import { type ByteSource, readRange, type Store } from "../core/io.ts";
import { isHubAddress } from "../io/address.ts";
import { fileStore } from "../io/file.ts";
import { gunzipOnce } from "../io/gunzip.ts";
import { registryOf } from "../plugins/registry.ts";
import { listFolder } from "../scan/folder.ts";
import { type Report, scanBare, scanZips } from "../scan/pickles.ts";
import { scanTemplate } from "../scan/template.ts";
import { MAX_TEXT_BYTES, scanText } from "../scan/text.ts";

/** Files that contain pickles, whatever their first bytes are. */
const PICKLES = /(^|\/)(\.metadata|[^/]*\.(pkl|pickle|pt|pth|bin|ckpt))$/i;
/** Files that torch.save writes. */
const TORCH = /\.(pt|pth|bin|ckpt)$/i;
const ARCHIVES = /\.(nemo|tar|tgz)$/i;
const TEXTS = /\.(json|ya?ml)$/i;
/** Largest number of findings in a report. */
const MAX_FINDINGS = 10_000;

/** Stops the scan at a damaged file. */
class Stop extends Error {}

/**
 * Scans files for code that other software would execute when it loads them.
 *
 * @param source path or `hf://` address of a folder, or of a file of any kind
 * @param options with `keepGoing` the scan continues after a damaged file; no plug-ins, because a scan runs no code of others
 * @returns the findings; `ok` if no finding is an error or a danger
 * @throws NOT_FOUND, IO_FAILED, and the errors of the Hub; faults of the files are findings
 * @example
 * const { ok, findings } = await scan("./downloaded-model");
 */
export async function scan(
  source: string,
  options: Omit<FindingsOptions, "plugins"> = {},
): Promise<FindingsReport> {
  const { files, findings: around } = await listFolder(source);
  const findings: Finding[] = [...around];
  try {
    for (const { path, name, store } of files) {
      options.signal?.throwIfAborted();
      await scanFile(await store(), name, path, reportOn(path, findings, options));
    }
    findings.push(...(await aboutAddress(source)));
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
  }
  return { ok: isOk(findings), findings };
}

/** A near miss at the address, such as files that are not fetched yet, which a scan cannot read. */
async function aboutAddress(source: string): Promise<Finding[]> {
  try {
    const store = isHubAddress(source) ? await storeAt(source) : await fileStore(source);
    const miss = await nearMissAt(store, { address: source, formats: registryOf({}).formats });
    if (miss === null) return [];
    const found = nearMiss(miss, source);
    if (miss.code === "NOT_FETCHED") return [{ ...found, severity: "warning" }];
    return [{ ...found, rule: "no-checkpoint", severity: "note" }];
  } catch (error) {
    if (error instanceof IsologitError) return []; // links and files that cannot be listed have their own findings
    throw error;
  }
}

function reportOn(file: string, findings: Finding[], options: FindingsOptions): Report {
  const add = (finding: Finding) => {
    if (findings.push(finding) >= MAX_FINDINGS) throw new Stop();
  };
  return {
    file,
    of: (member) => reportOn(member, findings, options),
    add,
    damaged(error) {
      if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
      const { code, message, at } = error;
      const text = `${code}: ${message}`;
      if (findings.some((known) => known.message === text && known.at.file === file)) return; // a second reader found the same damage
      add({
        rule: RULES.get(code) ?? "damaged",
        severity: "error",
        at: { file, tensor: at.tensor ?? null, offset: at.offset ?? null },
        message: text,
      });
      if (!options.keepGoing) throw new Stop();
    },
  };
}

/** Codes of faults that have their own rule. */
const RULES: ReadonlyMap<string, string> = new Map([
  ["PATH_UNSAFE", "unsafe-path"],
  ["DUPLICATE_NAME", "ambiguous-archive"],
  ["LIMIT_EXCEEDED", "limit"],
  ["SIZE_UNSAFE", "limit"],
  ["PICKLE_REFUSED", "pickle-refused"],
]);

/** Scans the only file of a store, or one member of an archive. */
async function scanFile(store: Store, name: string, path: string, report: Report): Promise<void> {
  try {
    await using source = await store.open(name);
    switch (kindOf(await readRange(source, 0, Math.min(source.size, 512)), name)) {
      case "archive":
        return await scanMembers(await tarStore(await gunzipOnce(store), name), path, report);
      case "zip":
        await scanZips(source, report);
        if (TORCH.test(name)) await readTorch(source, { file: path });
        return;
      case "entries":
        return await scanZips(source, report);
      case "pickle":
        return await scanBare(source, report);
      case "text":
        if (source.size <= MAX_TEXT_BYTES) {
          const text = await readTextAt(source, 0, source.size);
          for (const finding of scanText(text, path)) report.add(finding);
        }
        return;
      case "template":
        if (source.size <= MAX_TEXT_BYTES) {
          const found = scanTemplate(await readTextAt(source, 0, source.size), path);
          if (found !== null) report.add(found);
        }
        return;
      case "gguf":
        return await scanGguf(source, path, report);
      default:
        return;
    }
  } catch (error) {
    if (error instanceof Stop) throw error;
    report.damaged(error);
  }
}

/** Kind of a file, from its first bytes, else from its name. */
function kindOf(
  start: Uint8Array,
  name: string,
): "archive" | "zip" | "entries" | "pickle" | "text" | "template" | "gguf" | "other" {
  const bytes = Buffer.from(start);
  if (/\.distcp$/i.test(name)) return "entries";
  if (bytes.toString("latin1", 0, MAGIC.length) === MAGIC) return "gguf";
  if (bytes.toString("latin1", 0, 4) === "PK\x03\x04") return "zip";
  const isTar = bytes.toString("latin1", 257, 262) === "ustar";
  if (isTar || (bytes[0] === 0x1f && bytes[1] === 0x8b) || ARCHIVES.test(name)) return "archive";
  if ((bytes[0] === 0x80 && bytes[1]! <= 5) || PICKLES.test(name)) return "pickle";
  if (/\.jinja2?$/i.test(name)) return "template";
  return TEXTS.test(name) ? "text" : "other";
}

/** Reads the header as strictly as `inspect` does, and looks into the chat templates in it. */
async function scanGguf(source: ByteSource, path: string, report: Report): Promise<void> {
  const { metadata } = await readGgufHeader(source, path);
  for (const { key, type, span } of metadata) {
    if (type !== "string" || !key.startsWith("tokenizer.chat_template")) continue;
    const { offset, size } = span;
    const at = { file: path, offset };
    if (size > MAX_TEXT_BYTES) {
      report.add(
        finding("chat-template", "warning", at, `${key} has ${size} bytes, too many for a template`),
      );
      continue;
    }
    const message = `${key}: a template, which engines render; it uses no known way to Python's own objects`;
    const text = await readTextAt(source, offset, size);
    report.add(scanTemplate(text, path, offset) ?? finding("chat-template", "note", at, message));
  }
}

const readTextAt = async (source: ByteSource, offset: number, size: number): Promise<string> =>
  Buffer.from(await readRange(source, offset, size)).toString("utf8");

/** Scans the members of an archive. Their names are as if the archive were a folder. */
async function scanMembers(members: Store, path: string, report: Report): Promise<void> {
  for (const { path: name } of await members.list()) {
    await scanFile(members, name, `${path}/${name}`, report.of(`${path}/${name}`));
  }
}
