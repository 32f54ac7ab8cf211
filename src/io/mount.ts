/** Whether a folder is a mount point: it cannot be renamed, and the folders beside it are on another disk. */
import { lstatSync, readFileSync, realpathSync } from "node:fs";
import { dirname } from "node:path";

/** The mounts of this process, on Linux. No other file shows a mount of a folder from the same disk. */
const MOUNTS = "/proc/self/mountinfo";

/** @returns false for a missing path, and for a link to a folder: such a link can be replaced */
export function isMountPoint(path: string): boolean {
  try {
    const about = lstatSync(path);
    if (!about.isDirectory()) return false;
    const real = realpathSync(path);
    return about.dev !== lstatSync(dirname(real)).dev || mountPoints().has(real);
  } catch {
    return false; // the later write reports why the path cannot be read
  }
}

/** The fifth field of each line, with octal escapes for blanks. */
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
