/** Which files this process has open for writes past the page cache. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** The flag of such a file in /proc; Linux only. */
const O_DIRECT = 0o40000;

/** Whether an open file is written past the page cache. */
export function isDirect(fd: number | string): boolean {
  const flags = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))![1]!;
  return (Number.parseInt(flags, 8) & O_DIRECT) !== 0;
}

export const isOpenDirect = (path: string): boolean =>
  readdirSync("/proc/self/fd").some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path && isDirect(fd);
    } catch {
      return false; // the descriptor of the folder itself is closed by now
    }
  });
