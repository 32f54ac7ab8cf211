/** Power cuts at every point of a run: what must hold of the disk, and of a run that continues. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { tensorKey } from "../../src/core/checkpoint.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { sha256 } from "../../src/core/hash.ts";
import { filesOf } from "./goldens.ts";
import { CUTS, RecordedDisk, type Survived, survivors } from "./recorded-disk.ts";

export interface CutRun {
  /** folder in which nothing but the destination and its leftovers are */
  readonly folder: string;
  /** name of the destination in it */
  readonly name: string;
  /** content of the folder before the run; default: none */
  readonly before?: ReadonlyMap<string, Buffer>;
  readonly run: () => Promise<unknown>;
  readonly resume: () => Promise<unknown>;
}

/** What a resumed run is tried on: each so many of the different disks that cuts leave. */
export async function cutEverywhere(
  { folder, name, before = new Map(), run, resume }: CutRun,
  everyNth: number,
): Promise<{ readonly points: number; readonly disks: number; readonly resumed: number }> {
  const layOut = (files: Survived | ReadonlyMap<string, Buffer>) => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    for (const [path, content] of files) {
      if (path.endsWith("/")) mkdirSync(join(folder, path), { recursive: true });
      else if (typeof content !== "string") {
        mkdirSync(dirname(join(folder, path)), { recursive: true });
        writeFileSync(join(folder, path), content);
      } // a link: the lock of a process that ended with the machine
    }
  };
  layOut(before);
  const disk = new RecordedDisk(folder, before);
  await disk.record(run);
  const right = filesOf(folder); // without the certificate, which has a time
  const whole = survivors(disk.states.at(-1)!, "everything");
  const places = await placesIn(join(folder, name));
  const allowed = [contentAt(before, name), contentAt(whole, name)].map((files) =>
    JSON.stringify([...files].sort()),
  );
  allowed.push("[]");

  const seen = new Map<string, Survived>();
  for (const [point, state] of disk.states.entries()) {
    for (const cut of CUTS) {
      const left = survivors(state, cut);
      const told = `${cut} survive${cut.includes(" ") ? "" : "s"} of call ${point}`;
      expect(allowed, `${told}: the destination is neither absent, old nor whole`).toContain(
        JSON.stringify([...contentAt(left, name)].sort()),
      );
      refuseFalseClaims(left, name, places, told);
      seen.set(digestOfDisk(left), left);
    }
  }
  // the last state: the run said that it is done, so nothing of it may be lost
  for (const cut of CUTS) {
    const last = JSON.stringify([...contentAt(survivors(disk.states.at(-1)!, cut), name)].sort());
    expect(last, `${cut}, after the end`).toBe(allowed[1]);
  }

  let resumed = 0;
  for (const [i, left] of [...seen.values()].entries()) {
    if (i % everyNth !== 0) continue;
    layOut(left);
    await resume();
    expect(filesOf(folder), `resumed from disk ${i}`).toEqual(right);
    resumed++;
  }
  return { points: disk.states.length, disks: seen.size, resumed };
}

/** Digests of the files of a destination, by path in it. */
function contentAt(files: Survived | ReadonlyMap<string, Buffer>, name: string): ReadonlyMap<string, string> {
  const found = [...files].flatMap(([path, content]) => {
    if (typeof content === "string" || (path !== name && !path.startsWith(`${name}/`))) return [];
    return [[path, sha256(content)] as const];
  });
  return new Map(found);
}

/** Where each tensor lies in the destination, whole tensors only. */
async function placesIn(path: string) {
  const { tensors } = await openCheckpoint(path);
  return new Map(
    tensors.map((tensor) => {
      const [{ file, offset }] = tensor.pieces as [(typeof tensor.pieces)[number]];
      return [tensorKey(tensor), { file, offset, size: bytesOf(tensor.dtype, tensor.shape) }];
    }),
  );
}

/** A journal may name a tensor only if its bytes survived. */
function refuseFalseClaims(
  left: Survived,
  name: string,
  places: Awaited<ReturnType<typeof placesIn>>,
  told: string,
): void {
  const journal = left.get(`${name}.partial/journal.ndjson`);
  if (!Buffer.isBuffer(journal)) return;
  for (const line of journal.toString().split("\n").slice(1)) {
    const entry = parsed(line);
    const place = entry && places.get(entry.name);
    if (entry === undefined || place === undefined) continue;
    const file = left.get(`${name}.partial/data/${place.file}`) ?? left.get(place.file);
    if (left.has(name) || [...left.keys()].some((path) => path.startsWith(`${name}/`))) continue; // it is in its place
    const bytes = Buffer.isBuffer(file)
      ? file.subarray(place.offset, place.offset + place.size)
      : Buffer.alloc(0);
    expect(sha256(bytes), `${told}: the journal names ${entry.name}, whose bytes are lost`).toBe(
      entry.sha256,
    );
  }
}

function parsed(line: string): { name: string; sha256: string } | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // cut short
  }
}

const digestOfDisk = (left: Survived): string =>
  sha256(JSON.stringify([...left].map(([path, content]) => [path, sha256(content)])));

export const readInto = (folder: string, prefix: string): ReadonlyMap<string, Buffer> =>
  new Map([...filesOf(folder).keys()].map((path) => [`${prefix}/${path}`, readFileSync(join(folder, path))]));
