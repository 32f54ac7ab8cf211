/** Refuses values that are not plug-ins. A module from outside may be compiled against another version, or not at all. */
import type { Format, Writer } from "../../formats/format.ts";
import type { ScriptKernel } from "../../kernels/kernel.ts";
import { IsologitError } from "../core/errors.ts";
import { isJsonObject } from "../core/json.ts";
import type { Dialect } from "../families/dialect.ts";
import type { Family } from "../families/family.ts";
import type { Forward } from "../families/forward.ts";
import { PLUGIN_WORD, type Plugin } from "./plugin.ts";
import type { QuantizationDialect } from "./quantization-dialect.ts";

/** The kind of each member that `T` must have. The compiler asks for a line for each. */
type Members<T> = { readonly [K in keyof T as object extends Pick<T, K> ? never : K]: KindOf<T[K]> };
type KindOf<T> = T extends string
  ? "text"
  : T extends (...given: never[]) => unknown
    ? "function"
    : T extends readonly unknown[]
      ? "list"
      : "object";
type Kind = "text" | "function" | "list" | "object";

const PLUGIN: Members<Plugin> = { name: "text" };

const FORMAT: Members<Format> = { id: "text", title: "text", detect: "function", read: "function" };

const WRITER: Members<Writer> = {
  ...{ dialect: "text", software: "text", config: "text", prefix: "text", container: "text" },
  ...{ dtypes: "list", endings: "list", place: "function" },
};

const FAMILY: Members<Family> = {
  ...{ id: "text", claims: "function", pattern: "function", layers: "function", dims: "function" },
  ...{ kinds: "list", roles: "list", dialects: "list", recipes: "list", forward: "object" },
};

const DIALECT: Members<Dialect> = {
  ...{ id: "text", rules: "list", drop: "list", stacks: "object", objects: "function" },
  ...{ settings: "function", keyRemarks: "function", vocabulary: "function" },
  ...{ parallelism: "function", cut: "function", config: "function" },
};

const FORWARD: Members<Forward> = {
  ...{ streams: "function", experts: "function", blocks: "function", block: "function" },
  ...{ dispatched: "list", head: "list", natives: "list" },
};

const KERNEL: Members<ScriptKernel> = {
  ...{ id: "text", inputs: "function", output: "function", cases: "list", bound: "function" },
  ...{ oracle: "function", compute: "function", benchmark: "object" },
};

const QUANTIZATION_DIALECT: Members<QuantizationDialect> = {
  ...{ id: "text", scaleTensor: "function", takesInputScales: "function" },
  ...{ cacheScale: "function", describe: "function" },
};

/** Records of conversions and flags hold ids. */
const PLUGIN_ID = /^[\w.-]{1,64}$/;

/** The lists of a plug-in. */
const LISTS: Readonly<Record<Exclude<keyof Plugin, "name" | "version">, (part: Part) => void>> = {
  formats(format) {
    format.check(FORMAT);
    if (format.value.writes !== undefined) format.member("writes").check(WRITER);
  },
  families(family) {
    family.check(FAMILY);
    family.member("forward").check(FORWARD);
    for (const dialect of family.list("dialects")) dialect.check(DIALECT);
  },
  kernels: (kernel) => kernel.check(KERNEL),
  quantizationDialects: (dialect) => dialect.check(QUANTIZATION_DIALECT),
};

/**
 * @param value what a module exports
 * @throws PLUGIN_INVALID: names the part, and the member that is missing or of another kind
 */
export function refuseInvalidPlugin(value: unknown): asserts value is Plugin {
  const plugin = new Part(value, "the plug-in");
  plugin.check(PLUGIN);
  for (const key of ["name", "version"]) {
    const word = plugin.value[key] ?? "none";
    if (!PLUGIN_WORD.test(String(word)))
      throw plugin.error(
        `has ${describe(word)} as \`${key}\`, expected at most 64 letters, digits and @ / . _ -`,
      );
  }
  for (const key of Object.keys(plugin.value)) {
    if (key === "name" || key === "version") continue;
    if (!Object.hasOwn(LISTS, key))
      throw plugin.error(`has the unknown member \`${key}\`, expected ${Object.keys(LISTS).join(", ")}`);
    for (const part of plugin.list(key)) LISTS[key as keyof typeof LISTS](part);
  }
}

/** One object in a plug-in, with the words that name it. */
class Part {
  readonly value: Readonly<Record<string, unknown>>;
  readonly #name: string;

  constructor(value: unknown, name: string) {
    this.#name = name;
    if (!isJsonObject(value)) throw this.error(`is ${describe(value)}, expected an object`);
    this.value = value;
  }

  check(members: Readonly<Record<string, Kind>>): void {
    for (const [member, kind] of Object.entries(members)) this.#refuseOther(member, kind);
  }

  member(key: string): Part {
    return new Part(this.value[key], `${key} of ${this.#name}`);
  }

  list(key: string): readonly Part[] {
    this.#refuseOther(key, "list");
    return (this.value[key] as readonly unknown[]).map((part, i) => {
      const id = isJsonObject(part) && typeof part.id === "string" ? part.id : `number ${i + 1}`;
      const named = new Part(part, `${id} of ${key}`);
      if (!PLUGIN_ID.test(id) && typeof named.value.id === "string")
        throw named.error("has an id that is not made of letters, digits and . _ -");
      return named;
    });
  }

  error(message: string): IsologitError {
    return new IsologitError("PLUGIN_INVALID", `${this.#name} ${message}`);
  }

  #refuseOther(member: string, kind: Kind): void {
    const found = this.value[member];
    if (kindOf(found) !== kind)
      throw this.error(`has ${describe(found)} as \`${member}\`, expected a ${kind}`);
  }
}

function kindOf(value: unknown): Kind | null {
  if (typeof value === "string") return "text";
  if (typeof value === "function") return "function";
  if (Array.isArray(value)) return "list";
  return isJsonObject(value) ? "object" : null;
}

const describe = (value: unknown): string =>
  value === undefined ? "nothing" : (kindOf(value) ?? String(JSON.stringify(value)));
