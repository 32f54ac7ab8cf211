/** Quality limits of a recast as a YAML file: `kl`, `klP99` (nats), `top1` (a fraction). Nothing else can be widened. */
import { readFile } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import type { LimitOptions } from "../api/options.ts";
import { IsologitError, systemError } from "../core/errors.ts";

const nats = z.number().nonnegative();
const Schema = z.strictObject({
  kl: nats.exactOptional(),
  klP99: nats.exactOptional(),
  top1: z.number().min(0).max(1).exactOptional(),
});

/** The limits that options ask for; what they give themselves wins over the file. @throws USAGE, NOT_FOUND */
export async function readLimits<T extends LimitOptions>(options: T): Promise<T> {
  const { tolerance: file } = options;
  if (file === undefined) return options;
  const text = await readFile(file, "utf8").catch((cause) => {
    throw systemError(cause, { file });
  });
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 });
  } catch (cause) {
    throw new IsologitError("USAGE", `it is no YAML: ${(cause as Error).message}`, { file }, { cause });
  }
  const parsed = Schema.safeParse(value);
  if (parsed.success) return { ...parsed.data, ...options };
  const { path, message } = parsed.error.issues[0]!;
  throw new IsologitError("USAGE", [path.join("."), message].filter(Boolean).join(": "), { file });
}
