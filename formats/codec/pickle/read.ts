/**
 * Reads a pickle as data. It executes the opcodes of protocols 0 to 5, which here build only plain values: nothing is
 * imported, called or evaluated, whatever the pickle asks for. globals.ts lists the known names.
 *
 * An opcode takes at least one byte, and time in proportion to the bytes and stack items that it consumes. Shared values are
 * never expanded. So the limit on bytes limits time, and the limits in stack.ts limit memory.
 */
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import { globalName, type Meaning, meaningOf } from "./globals.ts";
import { PickleInput } from "./input.ts";
import { appendItems, pairsOf, recordOf, setItems, setState } from "./object.ts";
import { PickleStack } from "./stack.ts";
import { storageOf } from "./torch.ts";
import { describeValue, isKind, type PickleStorage, type PickleValue } from "./value.ts";

/** The largest pickles are `.metadata` files of distributed optimizers, with some 500 bytes for each chunk. */
export const MAX_PICKLE_BYTES = 128 * 1024 * 1024;

/** The longest listed name has 100 characters. */
const MAX_NAME = 1000;

/** A name that the pickle uses. Python would import its module and, if `called`, run it. */
export interface GlobalUse {
  /** dotted, as `os.system` */
  readonly name: string;
  readonly called: boolean;
  /** this reader has a meaning for the name */
  readonly listed: boolean;
  /** offset in the file */
  readonly offset: number;
}

interface PickleOptions {
  /** name of the file in errors */
  readonly file: string;
  /** where the pickle starts in the file, bytes; default 0. All offsets count from the start of the file */
  readonly base?: number;
  /** meanings of names beside those in globals.ts */
  readonly moreMeanings?: (name: string) => Meaning | undefined;
  /** called for each name at once, so that the names before an error are known */
  readonly onGlobal?: (use: GlobalUse) => void;
}

export interface Pickle {
  readonly value: PickleValue;
  /** one item for each use of a storage */
  readonly storages: readonly PickleStorage[];
  /** end of the last opcode, bytes from the start */
  readonly end: number;
}

/**
 * Reads the pickle at the start of `bytes`.
 *
 * @throws PICKLE_INVALID, PICKLE_REFUSED, TRUNCATED, LIMIT_EXCEEDED, VERSION_UNSUPPORTED, SIZE_UNSAFE, SPAN_INVALID,
 *         PATH_UNSAFE; each with the offset of the opcode
 */
export function readPickle(bytes: Uint8Array, options: PickleOptions): Pickle {
  if (bytes.byteLength > MAX_PICKLE_BYTES) {
    const message = `a pickle of ${bytes.byteLength} bytes; at most ${MAX_PICKLE_BYTES} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, { file: options.file });
  }
  return new Machine(bytes, options).run();
}

class Machine {
  readonly #input: PickleInput;
  readonly #options: PickleOptions;
  readonly #stack = new PickleStack((code, message) => new IsologitError(code, message, this.#at()));
  readonly #storages: PickleStorage[] = [];
  readonly #base: number;
  /** offset of the current opcode in the file */
  #offset = 0;

  constructor(bytes: Uint8Array, options: PickleOptions) {
    this.#base = options.base ?? 0;
    this.#input = new PickleInput(bytes, options.file, this.#base);
    this.#options = options;
  }

  run(): Pickle {
    for (;;) {
      this.#offset = this.#base + this.#input.offset;
      const code = this.#input.u8();
      if (code === 0x2e) {
        // "." STOP
        return { value: this.#stack.pop(), storages: this.#storages, end: this.#input.offset };
      }
      const value = this.#literal(code) ?? this.#container(code) ?? this.#object(code);
      if (value !== undefined) this.#stack.push(value);
      else this.#change(code);
    }
  }

  /** Numbers, text and bytes; undefined for other opcodes. */
  #literal(code: number): PickleValue | undefined {
    const input = this.#input;
    switch (code) {
      case 0x88: // NEWTRUE
        return true;
      case 0x89: // NEWFALSE
        return false;
      case 0x4b: // K BININT1
        return input.u8();
      case 0x4d: // M BININT2
        return input.u16();
      case 0x4a: // J BININT
        return input.i32();
      case 0x8a: // LONG1
        return input.int(input.u8());
      case 0x8b: // LONG4
        return input.int(input.i32());
      case 0x47: // G BINFLOAT
        return input.f64();
      case 0x58: // X BINUNICODE
        return input.text(input.u32());
      case 0x8c: // SHORT_BINUNICODE
        return input.text(input.u8());
      case 0x8d: // BINUNICODE8
        return input.text(input.u64());
      case 0x42: // B BINBYTES
        return input.bytes(input.u32());
      case 0x43: // C SHORT_BINBYTES
        return input.bytes(input.u8());
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        return input.bytes(input.u64());
      case 0x54: // T BINSTRING
        return input.text(input.i32());
      case 0x55: // U SHORT_BINSTRING
        return input.text(input.u8());
      case 0x53: // S STRING
        return input.quotedLine();
      case 0x56: // V UNICODE
        return input.escapedLine();
      case 0x49: // I INT
      case 0x4c: // L LONG
        return input.intLine();
      case 0x46: // F FLOAT
        return input.floatLine();
      default:
        return undefined;
    }
  }

  /** Lists, tuples, sets and dicts; undefined for other opcodes. */
  #container(code: number): PickleValue | undefined {
    switch (code) {
      case 0x5d: // ] EMPTY_LIST
        return { kind: "list", items: [] };
      case 0x29: // ) EMPTY_TUPLE
        return { kind: "tuple", items: [] };
      case 0x8f: // EMPTY_SET
        return { kind: "set", items: [] };
      case 0x7d: // } EMPTY_DICT
        return { kind: "dict", entries: [] };
      case 0x6c: // l LIST
        return { kind: "list", items: this.#stack.popMark() };
      case 0x74: // t TUPLE
        return { kind: "tuple", items: this.#stack.popMark() };
      case 0x91: // FROZENSET
        return { kind: "set", items: this.#stack.popMark() };
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        return { kind: "tuple", items: this.#stack.popMany(code - 0x84) };
      case 0x64: // d DICT
        return { kind: "dict", entries: pairsOf(this.#stack.popMark(), this.#at()) };
      default:
        return undefined;
    }
  }

  /** Names, and values made with them; undefined for other opcodes. */
  #object(code: number): PickleValue | undefined {
    const input = this.#input;
    switch (code) {
      case 0x63: // c GLOBAL
        return this.#global(input.line(), input.line());
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#stack.popMany(2);
        if (typeof module === "string" && typeof name === "string") return this.#global(module, name);
        throw this.#invalid("a name is not text");
      }
      // EXT1, EXT2, EXT4: a number for which a table inside Python has a name
      case 0x82:
        return this.#global("copyreg", `extension_${input.u8()}`);
      case 0x83:
        return this.#global("copyreg", `extension_${input.u16()}`);
      case 0x84:
        return this.#global("copyreg", `extension_${input.i32()}`);
      case 0x52: // R REDUCE
      case 0x81: {
        // NEWOBJ
        const [callee, args] = this.#stack.popMany(2);
        return this.#call(callee!, this.#argumentsOf(args!));
      }
      case 0x92: {
        // NEWOBJ_EX; named arguments become attributes
        const [callee, args, named] = this.#stack.popMany(3);
        const object = this.#call(callee!, this.#argumentsOf(args!));
        this.#giveState(object, named!);
        return object;
      }
      case 0x69: // i INST
        return this.#call(this.#global(input.line(), input.line()), this.#stack.popMark());
      case 0x6f: {
        // o OBJ
        const [callee, ...args] = this.#stack.popMark();
        if (callee !== undefined) return this.#call(callee, args);
        throw this.#invalid("an object has no class");
      }
      case 0x50: // P PERSID
        return this.#storage(input.line());
      case 0x51: // Q BINPERSID
        return this.#storage(this.#stack.pop());
      default:
        return undefined;
    }
  }

  /** Changes a value, the stack or the memo. @throws PICKLE_INVALID for an unknown opcode */
  #change(code: number): void {
    const [input, stack] = [this.#input, this.#stack];
    switch (code) {
      case 0x4e: // N NONE
        stack.push(null);
        break;
      case 0x61: {
        // a APPEND
        const item = stack.pop();
        appendItems(stack.top(), [item], this.#at());
        break;
      }
      case 0x65: // e APPENDS
      case 0x90: {
        // ADDITEMS
        const items = stack.popMark();
        appendItems(stack.top(), items, this.#at());
        break;
      }
      case 0x73: {
        // s SETITEM
        const pair = stack.popMany(2);
        setItems(stack.top(), pair, this.#at());
        break;
      }
      case 0x75: {
        // u SETITEMS
        const pairs = stack.popMark();
        setItems(stack.top(), pairs, this.#at());
        break;
      }
      case 0x62: {
        // b BUILD
        const state = stack.pop();
        this.#giveState(stack.top(), state);
        break;
      }
      case 0x28: // ( MARK
        stack.mark();
        break;
      case 0x30: // 0 POP
        stack.drop();
        break;
      case 0x31: // 1 POP_MARK
        stack.popMark();
        break;
      case 0x32: // 2 DUP
        stack.share(stack.top());
        break;
      case 0x70: // p PUT
        stack.put(Number(input.intLine()));
        break;
      case 0x71: // q BINPUT
        stack.put(input.u8());
        break;
      case 0x72: // r LONG_BINPUT
        stack.put(input.u32());
        break;
      case 0x94: // MEMOIZE
        stack.put();
        break;
      case 0x67: // g GET
        stack.get(Number(input.intLine()));
        break;
      case 0x68: // h BINGET
        stack.get(input.u8());
        break;
      case 0x6a: // j LONG_BINGET
        stack.get(input.u32());
        break;
      case 0x80: // PROTO
        this.#protocol(input.u8());
        break;
      case 0x95: // FRAME; only readers of streams need it
        input.demand(input.u64());
        break;
      default:
        throw this.#invalid(`opcode 0x${code.toString(16).padStart(2, "0")} is not known`);
    }
  }

  #protocol(version: number): void {
    if (version > 5) {
      throw new IsologitError(
        "VERSION_UNSUPPORTED",
        `pickle protocol ${version}; 0 to 5 are read`,
        this.#at(),
      );
    }
  }

  #global(module: string, name: string): PickleValue {
    if (module.length + name.length > MAX_NAME) throw this.#invalid("a name is longer than any known name");
    const global = globalName(module, name);
    const listed = this.#meaningOf(global) !== undefined;
    this.#options.onGlobal?.({ name: global, called: false, listed, offset: this.#offset });
    return listed ? { kind: "global", name: global } : { kind: "opaque", name: global, offset: this.#offset };
  }

  #meaningOf(name: string): Meaning | undefined {
    return meaningOf(name) ?? this.#options.moreMeanings?.(name);
  }

  #storage(id: PickleValue): PickleValue {
    const storage = storageOf(id, this.#at());
    if (isKind(storage, "storage")) this.#storages.push(storage);
    return storage;
  }

  /** The result of calling `callee`, as data. */
  #call(callee: PickleValue, args: readonly PickleValue[]): PickleValue {
    if (isKind(callee, "opaque")) {
      this.#options.onGlobal?.({ name: callee.name, called: true, listed: false, offset: this.#offset });
      return callee;
    }
    if (!isKind(callee, "global")) throw this.#invalid(`${describeValue(callee)} is called`);
    const { name } = callee;
    this.#options.onGlobal?.({ name, called: true, listed: true, offset: this.#offset });
    const meaning = this.#meaningOf(name)!; // only a listed name becomes a global
    switch (meaning.use) {
      case "function": {
        const made = meaning.make(args, this.#at());
        this.#stack.charge(weightOf(made));
        return made;
      }
      case "class":
        return recordOf(name, args);
      case "value":
        throw this.#invalid(`${name} is called`);
      default:
        return meaning satisfies never;
    }
  }

  #giveState(object: PickleValue, state: PickleValue): void {
    this.#stack.charge(setState(object, state, this.#at()));
  }

  #argumentsOf(args: PickleValue): readonly PickleValue[] {
    if (isKind(args, "tuple")) return args.items;
    throw this.#invalid(`arguments are ${describeValue(args)}, expected a tuple`);
  }

  #at(): ErrorLocation {
    return { file: this.#options.file, offset: this.#offset };
  }

  #invalid(message: string): IsologitError {
    return new IsologitError("PICKLE_INVALID", message, this.#at());
  }
}

/** Number of values directly inside a value: the cost of a copy. */
function weightOf(value: PickleValue): number {
  if (value instanceof Uint8Array) return value.byteLength / 64;
  if (isKind(value, "dict")) return value.entries.length;
  return isKind(value, "list") || isKind(value, "tuple") || isKind(value, "set") ? value.items.length : 0;
}
