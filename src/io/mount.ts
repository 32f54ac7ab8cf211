/** Whether a folder is a mount point: it cannot be renamed, and what lies beside it lies on another disk. */
import { lstatSync, readFileSync, realpathSync } from "node:fs";
import { dirname } from "node:path";

/** The mounts of this process, where the system tells them: a mount of a folder of the same disk shows nowhere else. */
const MOUNTS = "/proc/self/mountinfo";

/** @returns false for what is not there, and for what is no folder: a link to one is replaced as any other link is */
export function isMountPoint(path: string): boolean {
  try {
    const about = lstatSync(path);
    if (!about.isDirectory()) return false;
    const real = realpathSync(path);
    return about.dev !== lstatSync(dirname(real)).dev || mountPoints().has(real);
  } catch {
    return false; // what cannot be looked at is told by whoever writes there
  }
}

/** The fifth field of each line; octal escapes stand for blanks. */
function mountPoints(): ReadonlySet<string> {
  try {
    const lines = readFileSync(MOUNTS, "utf8").split("\n");
    return new Set(lines.map((line) => unescaped(line.split(" ")[4] ?? "")));
  } catch {
    return new Set(); // no such file on this system
  }
}

const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
