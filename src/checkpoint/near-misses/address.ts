/** Addresses near an address, and paths as a shell takes them. */
import { basename, dirname, join, resolve } from "node:path";
import { isHubAddress } from "../../io/address.ts";

/** The address of `path` below an address. */
export function addressBelow(address: string, path: string): string {
  if (path === "") return address;
  return isHubAddress(address) ? `${address.replace(/\/+$/, "")}/${path}` : join(address, path);
}

/** The folder above an address; undefined at the top of a repository or of a disk. */
export function addressAbove(address: string): string | undefined {
  if (isHubAddress(address)) {
    const [, repo, path] =
      /^(hf:\/\/[^/]+\/(?:[^/@]+)(?:@(?:refs\/pr\/\d+|[^/]+))?)\/(.+?)\/*$/i.exec(address) ?? [];
    if (repo === undefined || path === undefined) return undefined;
    const folder = path.split("/").slice(0, -1).join("/");
    return folder === "" ? repo : `${repo}/${folder}`;
  }
  const whole = resolve(address);
  return dirname(whole) === whole ? undefined : shortest(address, dirname(whole));
}

/** The last name of an address. */
export function nameOf(address: string): string {
  return isHubAddress(address)
    ? (address.replace(/\/+$/, "").split("/").at(-1) ?? "")
    : basename(resolve(address));
}

/** The folder above, spelled as the user typed it, if possible: `runs/a` of `runs/a/weights`. */
function shortest(address: string, above: string): string {
  const typed = dirname(address.replace(/\/+$/, "") || "/");
  return resolve(typed) === above && typed !== "." ? typed : above;
}

/** A path as one word of a shell's command line. */
export function shellWord(path: string): string {
  return /^[\w@%+=:,./~-]+$/.test(path) && !path.startsWith("-")
    ? path
    : `'${path.replaceAll("'", "'\\''")}'`;
}
