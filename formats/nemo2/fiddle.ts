/**
 * `io.json`: a graph of Fiddle configs, in which NeMo 2 stores the setup of a run. It contains names of classes and the
 * arguments that were passed to them, without defaults. It is read as plain data; no name is looked up.
 */
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import { type ConfigRecord, isRecord } from "../codec/yaml.ts";

const CONFIG_CLASS = "fiddle._src.config.Config";
const METADATA = "fiddle._src.config.BuildableTraverserMetadata";
/** A real graph has some ten levels. */
const MAX_DEPTH = 64;
/** Shared objects are read once for each use; a real graph has some hundred uses. */
const MAX_NODES = 100_000;

/**
 * The root as nested records. A config becomes its arguments and, under `_target_`, the dotted name of its class. A class or
 * function as an argument becomes `{_target_, _call_: false}`, as NeMo writes it in model.yaml. Values that Fiddle cannot
 * express (pickled artifacts) are left out.
 *
 * @throws CONFIG_INVALID, LIMIT_EXCEEDED
 */
export function parseFiddle(graph: ConfigRecord, at: ErrorLocation): ConfigRecord {
  const { root, objects } = graph;
  if (!isRecord(root) || !isRecord(objects)) {
    throw new IsologitError("CONFIG_INVALID", "expected a Fiddle graph with a root and objects", at);
  }
  let nodes = 0;

  function read(value: unknown, depth: number): unknown {
    if (++nodes > MAX_NODES || depth > MAX_DEPTH) {
      throw new IsologitError("LIMIT_EXCEEDED", "the graph is larger or deeper than a real one", at);
    }
    if (!isRecord(value)) return value; // a tuple contains the names of arguments as plain text
    switch (value.type) {
      case "leaf":
        return value.value;
      case "pyref":
        return { _target_: dotted(value), _call_: false };
      case "ref":
        return object(objectAt(value.key), depth);
      default:
        return isRecord(value.type) ? object(value, depth) : undefined;
    }
  }

  function object(node: ConfigRecord, depth: number): unknown {
    const type = dotted(node.type);
    const items = itemsOf(node).map(
      ([name, value]) => [name, read(value, depth + 1)] as const satisfies readonly [string, unknown],
    );
    switch (type) {
      case "builtins.tuple":
      case "builtins.list":
        return items.map(([, value]) => value);
      case "builtins.dict":
      case METADATA:
        return Object.fromEntries(items);
      case CONFIG_CLASS:
        return { ...targetOf(node, depth), ...Object.fromEntries(items) };
      default:
        return undefined;
    }
  }

  function targetOf(node: ConfigRecord, depth: number): ConfigRecord {
    const metadata = read(node.metadata, depth + 1);
    const fn = isRecord(metadata) ? metadata.fn_or_cls : undefined;
    if (!isRecord(fn)) throw invalid("a config without a class");
    return { _target_: fn._target_ };
  }

  function objectAt(key: unknown): ConfigRecord {
    const found = typeof key === "string" && Object.hasOwn(objects as ConfigRecord, key);
    const node = found ? (objects as ConfigRecord)[key] : undefined; // `found` means that it is a record
    if (isRecord(node)) return node;
    throw invalid(`a reference to ${JSON.stringify(key)}, which it does not hold`);
  }

  function itemsOf(node: ConfigRecord): readonly (readonly [string, unknown])[] {
    if (!Array.isArray(node.items)) throw invalid("an object without items");
    return node.items.map((item: unknown) => {
      if (!Array.isArray(item) || typeof item[0] !== "string") throw invalid("an item without a name");
      return [/^(?:Attr\(name|Key\(key|Index\(index)='?(.*?)'?\)$/.exec(item[0])?.[1] ?? item[0], item[1]];
    });
  }

  function dotted(node: unknown): string {
    if (isRecord(node) && typeof node.module === "string" && typeof node.name === "string") {
      return `${node.module}.${node.name}`;
    }
    throw invalid("a class without a name");
  }

  function invalid(what: string): IsologitError {
    return new IsologitError("CONFIG_INVALID", `the Fiddle graph has ${what}`, at);
  }

  const value = read(root, 0);
  return isRecord(value) ? value : {};
}

/** A config to write: module and name of its class, and its arguments in order. */
export interface FiddleConfig {
  readonly module: string;
  readonly name: string;
  readonly args: readonly (readonly [string, FiddleArgument])[];
}

/** A text, a number, a boolean or null; a config; or an empty dict. */
export type FiddleArgument =
  | string
  | number
  | boolean
  | null
  | FiddleConfig
  | Readonly<Record<string, never>>;

type Node = Record<string, unknown>;

/** The graph as `fiddle` 0.3 writes it, with its names and its order: children, metadata, the object itself. */
export function fiddleText(root: FiddleConfig): string {
  const objects: Record<string, Node> = {};
  const taken = new Map<string, number>();

  function add(base: string, node: Node): Node {
    const number = (taken.get(base) ?? 0) + 1;
    taken.set(base, number);
    const key = `${base}_${number}`;
    objects[key] = node;
    return { type: "ref", key };
  }

  function config({ module, name, args }: FiddleConfig, path: string): Node {
    const items = args.map(([arg, value]) => [`Attr(name='${arg}')`, argument(value, `${path}.${arg}`)]);
    const names = args.map(([arg], i) => [`Index(index=${i})`, arg]);
    const argumentNames = sequence(names);
    const metadata = {
      type: pyref("fiddle._src.config", "BuildableTraverserMetadata"),
      items: [
        ["Attr(name='fn_or_cls')", pyref(module, name)],
        ["Attr(name='argument_names')", args.length === 0 ? argumentNames : add("tuple", argumentNames)],
        ["Attr(name='argument_tags')", add("dict", emptyDict())],
        ["Attr(name='argument_history')", add("dict", emptyDict())],
      ],
      metadata: pyref("fiddle._src.config", "BuildableTraverserMetadata"),
    };
    const about = add("buildable_traverser_metadata", metadata);
    const type = pyref("fiddle._src.config", "Config");
    return add(snake(name), { type, items, metadata: about, paths: [path] });
  }

  function argument(value: FiddleArgument, path: string): Node {
    if (value === null || typeof value !== "object") return { type: "leaf", value, paths: [path] };
    return isConfig(value) ? config(value, path) : add("dict", { ...emptyDict(), paths: [path] });
  }

  const ref = config(root, "<root>");
  const refcounts = Object.fromEntries(Object.keys(objects).map((key) => [key, 1]));
  return JSON.stringify({ root: ref, objects, refcounts, version: "0.0.1" });
}

function isConfig(value: FiddleConfig | Readonly<Record<string, never>>): value is FiddleConfig {
  return "args" in value;
}

function pyref(module: string, name: string): Node {
  return { type: "pyref", module, name };
}

function sequence(items: readonly unknown[]): Node {
  return { type: pyref("builtins", "tuple"), items, metadata: null };
}

function emptyDict(): Node {
  return { type: pyref("builtins", "dict"), items: [], metadata: sequence([]) };
}

/** NemotronHConfig8B -> nemotron_hconfig8_b */
function snake(name: string): string {
  return name.replace(/(?<=[a-z0-9])(?=[A-Z])/g, "_").toLowerCase();
}
