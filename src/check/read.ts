/** `check --read`: reads every byte and compares the bytes with the digests that the format stores. */

import type { Checkpoint, SealedSpan } from "../core/checkpoint.ts";
import { withLocation } from "../core/errors.ts";
import { ignoreEvents } from "../core/events.ts";
import type { Finding } from "../core/finding.ts";
import { findingOf } from "../core/finding.ts";
import type { Store } from "../core/io.ts";
import { damageOfSpan } from "../core/sealed-spans.ts";
import { registryOf } from "../plugins/registry.ts";
import type { CheckOptions } from "./options.ts";

/** Bytes read at a time. */
const STEP_BYTES = 4 * 1024 * 1024;

/**
 * Findings for the faults of the first damaged file, or with `keepGoing` of every file.
 *
 * @param checkpoint opened with `sealed: false`
 * @throws IO_FAILED, and errors that are not a fault of the checkpoint
 */
export async function checkBytes(checkpoint: Checkpoint, options: CheckOptions): Promise<readonly Finding[]> {
  const { watch = ignoreEvents, keepGoing = false, signal } = options;
  const { store, format: id } = checkpoint;
  const format = registryOf(options).formats.find((candidate) => candidate.id === id);
  const files = await store.list();
  watch({ type: "phase", phase: "check", totalBytes: files.reduce((sum, { size }) => sum + size, 0) });
  const findings: Finding[] = [];
  for (const { path, size } of files) {
    const seals = sealsIn(checkpoint, path);
    const faults = format?.damage?.(store, signal) ?? damageOfFile(store, { path, size }, seals, signal);
    try {
      for await (const fault of faults) findings.push(findingOf(fault, path));
    } catch (error) {
      findings.push(findingOf(withLocation(error, { file: path }), path));
    }
    watch({ type: "advance", phase: "check", bytes: size });
    if (findings.length > 0 && !keepGoing) break;
  }
  return findings;
}

function sealsIn({ seals = [] }: Checkpoint, file: string): readonly SealedSpan[] {
  return seals.filter((seal) => seal.file === file).sort((a, b) => a.offset - b.offset);
}

/** Reads all bytes of a file. Sealed spans are compared with their digests; the other bytes must be readable. */
async function* damageOfFile(
  store: Store,
  { path, size }: { readonly path: string; readonly size: number },
  seals: readonly SealedSpan[],
  signal: AbortSignal | undefined,
) {
  await using source = await store.open(path);
  const buffer = new Uint8Array(Math.min(STEP_BYTES, size));
  const read = async (offset: number, count: number) => {
    const bytes = buffer.subarray(0, count);
    await source.readInto(bytes, offset, signal);
    return bytes;
  };
  let at = 0;
  const pass = async (end: number) => {
    for (; at < end; at = Math.min(end, at + STEP_BYTES)) await read(at, Math.min(STEP_BYTES, end - at));
  };
  for (const seal of seals) {
    await pass(seal.offset);
    yield* damageOfSpan(seal, read, buffer.byteLength);
    at = Math.max(at, seal.offset + seal.size);
  }
  await pass(size);
}
