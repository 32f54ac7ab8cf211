/**
 * What arrives in small portions goes to disk in blocks, one being written while the next is gathered. A call of the
 * system for each portion of a socket took as long as receiving it.
 */
import type { FileHandle } from "node:fs/promises";

/** Where the process is killed, two are lost and fetched again, one gathered and one being written: 1 MiB a file at most. */
const BLOCK_BYTES = 512 * 1024;

export interface Appender {
  /** May keep `bytes` until later; waits only while a whole block is in front of it. */
  write(bytes: Uint8Array): Promise<void>;
  /** All that was given is in the file afterwards. */
  flush(): Promise<void>;
}

/** @param handle opened to append */
export function appender(handle: FileHandle): Appender {
  let gathered: Uint8Array[] = [];
  let size = 0;
  let writing = Promise.resolve();
  async function turn(): Promise<void> {
    await writing;
    const block = gathered;
    [gathered, size] = [[], 0];
    writing = writeAll(handle, block);
    writing.catch(() => {}); // the next to write or flush finds out
  }
  return {
    async write(bytes) {
      gathered.push(bytes);
      size += bytes.byteLength;
      if (size >= BLOCK_BYTES) await turn();
    },
    async flush() {
      await turn();
      await writing;
    },
  };
}

/** A short write is gone on from. */
async function writeAll(handle: FileHandle, block: readonly Uint8Array[]): Promise<void> {
  let rest = block.filter(({ byteLength }) => byteLength > 0);
  while (rest.length > 0) {
    let { bytesWritten } = await handle.writev(rest);
    rest = rest.flatMap((bytes) => {
      const done = Math.min(bytesWritten, bytes.byteLength);
      bytesWritten -= done;
      return done === bytes.byteLength ? [] : [bytes.subarray(done)];
    });
  }
}
