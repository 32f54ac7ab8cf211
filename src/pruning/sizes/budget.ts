/** The memory budget of a search, as text: `memory=31.7GiB,weights=fp4,kv=fp8,state=bf16,context=1M,batch=1`. */
import { IsologitError } from "../../core/errors.ts";
import { entriesOf } from "./entries.ts";
import { BYTES_OF_PRECISION, type Precision, type Serving } from "./memory.ts";

/** How a model is to be served, and the bytes that it may need. */
export interface Budget extends Serving {
  readonly memory: number;
}

const DEFAULT_SERVING: Serving = {
  ...{ weights: "bf16", kv: "bf16", state: "bf16" },
  ...{ context: 8192, batch: 1 },
};

const KEYS = ["memory", "weights", "kv", "state", "context", "batch"] as const;

/**
 * Reads a budget. Only `memory` is required.
 *
 * @throws USAGE, which names the key
 */
export function parseBudget(text: string): Budget {
  const given = entriesOf("budget", text, KEYS);
  const read = <T>(key: (typeof KEYS)[number], by: (key: string, text: string) => T, usual: T): T => {
    const value = given.get(key);
    return value === undefined ? usual : by(key, value);
  };
  const memory = given.get("memory");
  if (memory === undefined) {
    const next = { next: "add the memory of the card, for example `budget` memory=24GiB" };
    throw new IsologitError("USAGE", "`budget` has no memory", {}, next);
  }
  const usual = DEFAULT_SERVING;
  return {
    memory: readBytes("memory", memory),
    weights: read("weights", readPrecision, usual.weights),
    kv: read("kv", readPrecision, usual.kv),
    state: read("state", readPrecision, usual.state),
    context: read("context", readCount, usual.context),
    batch: read("batch", readCount, usual.batch),
  };
}

const refusedValue = (key: string, text: string, expected: string): IsologitError =>
  new IsologitError("USAGE", `${key} in \`budget\` is ${JSON.stringify(text)}, expected ${expected}`);

const UNITS: Readonly<Record<string, number>> = {
  ...{ B: 1, KB: 1e3, MB: 1e6, GB: 1e9 },
  ...{ KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 },
};

function readBytes(key: string, text: string): number {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)([KMG]?i?B)$/.exec(text) ?? [];
  const bytes = Math.floor(Number(digits) * (UNITS[unit] ?? Number.NaN));
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw refusedValue(key, text, "a size with its unit, such as 31.7GiB or 24GB");
}

function readPrecision(key: string, text: string): Precision {
  if (Object.hasOwn(BYTES_OF_PRECISION, text)) return text as Precision; // a key of the table
  throw refusedValue(key, text, `one of ${Object.keys(BYTES_OF_PRECISION).join(", ")}`);
}

const FACTORS: Readonly<Record<string, number>> = { "": 1, K: 1e3, M: 1e6, Ki: 2 ** 10, Mi: 2 ** 20 };

function readCount(key: string, text: string): number {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)(Ki|Mi|K|M|)$/.exec(text) ?? [];
  const count = Number(digits) * FACTORS[unit]!;
  if (Number.isSafeInteger(count) && count > 0) return count;
  throw refusedValue(key, text, "a whole number above 0, such as 8192, 128Ki or 1M");
}
