/** Broken links of a local folder, such as a snapshot of the Hub's cache that was copied without its blobs. */
import { lstat, readdir, readlink, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { IsologitError } from "../../core/errors.ts";
import { isHubAddress } from "../../io/address.ts";

/** Largest number of entries that are examined. */
const MAX_ENTRIES = 100_000;
/** `models--owner--name/snapshots/<commit>`: how the Hub's cache stores a revision. */
const SNAPSHOT = /(?:^|\/)models--([^/]+?)--([^/]+)\/snapshots\/([0-9a-f]{40})(?:\/|$)/;

export async function danglingLinks(address: string): Promise<IsologitError | null> {
  if (isHubAddress(address)) return null;
  const paths = await entriesOf(address);
  let links = 0;
  const dangling: { path: string; target: string }[] = [];
  for (const path of paths) {
    const where = join(address, path);
    if (!(await lstat(where)).isSymbolicLink()) continue;
    links++;
    if (await leadsNowhere(where)) dangling.push({ path, target: await readlink(where) });
  }
  const first = dangling.find(({ path }) => path.endsWith(".safetensors")) ?? dangling[0];
  if (first === undefined) return null;
  const count = dangling.length > 1 ? `; ${dangling.length} of the ${links} links here are broken` : "";
  const blob = /(^|\/)blobs\/[0-9a-f]+$/.test(first.target) ? " (a missing blob of the Hub's cache)" : "";
  const message = `this is a link to ${first.target}, which does not exist${blob}${count}`;
  const [, owner, name, commit] = SNAPSHOT.exec(resolve(address)) ?? [];
  const next =
    owner === undefined
      ? "copy the files with their links followed (`cp -rL`), or fetch them again"
      : `fetch the missing files: \`isologit download ${owner}/${name} --revision ${commit}\`; or copy a snapshot with its links followed (\`cp -rL\`)`;
  return new IsologitError("NOT_FETCHED", message, { file: first.path || address }, { next });
}

/** All entries below a folder, without following links. If the address is not a folder: only "", the address itself. */
async function entriesOf(root: string): Promise<readonly string[]> {
  if (!(await lstat(root)).isDirectory()) return [""];
  const found: string[] = [];
  const visit = async (prefix: string): Promise<void> => {
    for (const entry of await readdir(join(root, prefix), { withFileTypes: true })) {
      if (found.length >= MAX_ENTRIES) return;
      found.push(prefix + entry.name);
      if (entry.isDirectory()) await visit(`${prefix}${entry.name}/`);
    }
  };
  await visit("");
  return found;
}

const leadsNowhere = (where: string): Promise<boolean> =>
  stat(where).then(
    () => false,
    () => true,
  );
