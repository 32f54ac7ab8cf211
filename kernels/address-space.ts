/**
 * Addresses that this process may still reserve. Clusters limit them (`ulimit -v`). V8 reserves many more than it uses, and
 * ends the process where it has too few for a new thread; so the limit is read before a thread starts.
 */
import { readFileSync } from "node:fs";
import { IsologitError } from "../src/core/errors.ts";

const GIB = 2 ** 30;
/** What V8 reserves for a memory of WebAssembly, so that each access beyond its end meets an address without a page. */
const MEMORY_BYTES = 10 * GIB;
/** What it reserves if it compares addresses in place of that: with the flag below. */
const COMPARED_MEMORY_BYTES = 4 * GIB;
const COMPARE = "--disable-wasm-trap-handler";
/** A thread: its heap, its code and its stack. Node 20 reserves 0.58 GiB when it starts. */
const THREAD_BYTES = 0.75 * GIB;
/** For the heap of the program, which grows while it runs. */
const SPARE_BYTES = 0.5 * GIB;

interface AddressSpace {
  readonly limit: number;
  readonly used: number;
}

/** @returns null without a limit, and on systems that do not tell */
function addressSpace(): AddressSpace | null {
  try {
    const limit = /^Max address space +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1];
    const used = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1];
    if (limit === undefined || used === undefined) return null;
    return { limit: Number(limit), used: Number(used) * 1024 };
  } catch {
    return null;
  }
}

/** Whether memory and threads that nobody uses should be given back at once. */
export const isAddressSpaceLimited = (): boolean => addressSpace() !== null;

/**
 * The number of threads that may start, at most `wanted`.
 *
 * @throws ADDRESS_SPACE if there is no room for one
 */
export function roomForThreads(wanted: number): number {
  const space = addressSpace();
  if (space === null) return wanted;
  const room = Math.floor((space.limit - space.used - SPARE_BYTES) / THREAD_BYTES);
  if (room < 1) throw addressesError(0);
  return Math.min(wanted, room);
}

/** @param cause why V8 could not reserve a memory of WebAssembly */
export function memoryError(cause: unknown): IsologitError {
  const compares = [...process.execArgv, process.env.NODE_OPTIONS ?? ""].join(" ").includes(COMPARE);
  return addressesError(compares ? COMPARED_MEMORY_BYTES : MEMORY_BYTES, cause);
}

function addressesError(memoryBytes: number, cause?: unknown): IsologitError {
  const { limit, used } = addressSpace() ?? { limit: null, used: 0 };
  const needed = used + memoryBytes + THREAD_BYTES + SPARE_BYTES;
  const has = limit === null ? "the system refuses them" : `this process may have ${gib(limit)} GiB`;
  const message = `${gib(needed)} GiB of virtual memory are needed, most of them as addresses without memory; ${has}`;
  const other =
    memoryBytes === MEMORY_BYTES
      ? `, or set NODE_OPTIONS=${COMPARE}: each memory then takes ${gib(COMPARED_MEMORY_BYTES)} GiB of addresses in place of ${gib(MEMORY_BYTES)}`
      : "";
  const next = `raise the limit (\`ulimit -v ${Math.ceil(needed / 1024)}\`)${other}`;
  return new IsologitError("ADDRESS_SPACE", message, {}, { cause, next });
}

const gib = (bytes: number): string => (Math.ceil((bytes / GIB) * 10) / 10).toFixed(1);
