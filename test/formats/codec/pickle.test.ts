/** The pickle machine: every opcode as Python means it, limits on what few bytes can ask for, nothing called. */
import { describe, expect, it } from "vitest";
import { meaningOf } from "../../../formats/codec/pickle/globals.ts";
import { type GlobalUse, readPickle } from "../../../formats/codec/pickle/read.ts";
import {
  entriesByText,
  expectKind,
  expectRecord,
  expectShape,
  type PickleValue,
} from "../../../formats/codec/pickle/value.ts";
import { codeOf } from "../../support/errors.ts";

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));
const read = (text: string): PickleValue => readPickle(bytesOf(text), { file: "x" }).value;
const list = (...items: PickleValue[]): PickleValue => ({ kind: "list", items });
const tuple = (...items: PickleValue[]): PickleValue => ({ kind: "tuple", items });

describe("opcodes", () => {
  // each pickle beside what Python makes of it
  it.each<[string, string, PickleValue]>([
    ["NONE", "N.", null],
    ["NEWTRUE, NEWFALSE", "\x88\x89\x86.", tuple(true, false)],
    ["INT of protocol 0, booleans too", "(I5\nI01\nI00\nI-7\nl.", list(5, true, false, -7)],
    ["LONG of protocol 0", "L123456789012345678901L\n.", 123456789012345678901n],
    ["BININT, BININT1, BININT2", "(J\xff\xff\xff\xffK\xffM\xff\xfft.", tuple(-1, 255, 65535)],
    [
      "LONG1 of no byte, of one, of nine",
      "\x8a\x00\x8a\x01\xff\x8a\x09\0\0\0\0\0\0\0\0\x01\x87.",
      tuple(0, -1, 2n ** 64n),
    ],
    ["LONG4", "\x8b\x02\0\0\0\0\x80.", -32768],
    ["FLOAT", "(F1.5\nF-inf\nF1e3\nl.", list(1.5, Number.NEGATIVE_INFINITY, 1000)],
    ["BINFLOAT", "G?\xf8\0\0\0\0\0\0.", 1.5],
    ["STRING", "S'a\\'b\\x41\\n\\\\'\n.", "a'bA\n\\"],
    ["UNICODE", "Va\\u00e9\n.", "aé"],
    ["BINSTRING, SHORT_BINSTRING", "T\x02\0\0\0abU\x01c\x86.", tuple("ab", "c")],
    [
      "BINUNICODE of 1, 4 and 8 bytes",
      "\x8c\x01aX\x01\0\0\0b\x8d\x01\0\0\0\0\0\0\0c\x87.",
      tuple("a", "b", "c"),
    ],
    [
      "BINBYTES of 1, 4 and 8 bytes",
      "C\x01aB\x01\0\0\0b\x8e\x01\0\0\0\0\0\0\0c\x87.",
      tuple(bytesOf("a"), bytesOf("b"), bytesOf("c")),
    ],
    ["BYTEARRAY8", "\x96\x01\0\0\0\0\0\0\0a.", bytesOf("a")],
    ["lists of three kinds", "](K\x01K\x02e(K\x03l]K\x04a\x87.", tuple(list(1, 2), list(3), list(4))],
    [
      "tuples of all lengths",
      ")K\x01\x85K\x01K\x02\x86(K\x01K\x02K\x03K\x04t\x87.",
      tuple(tuple(1), tuple(1, 2), tuple(1, 2, 3, 4)),
    ],
    [
      "DICT, SETITEM, SETITEMS",
      "(K\x01K\x02dK\x03K\x04s(K\x05K\x06u.",
      {
        kind: "dict",
        entries: [
          [1, 2],
          [3, 4],
          [5, 6],
        ],
      },
    ],
    [
      "sets",
      "\x8f(K\x01\x90(K\x02\x91\x86.",
      tuple({ kind: "set", items: [1] }, { kind: "set", items: [2] }),
    ],
    ["PUT and GET of protocol 0", "]p0\ng0\n\x86.", tuple(list(), list())],
    ["MEMOIZE, BINGET, LONG_BINGET", "K\x07\x94h\0j\0\0\0\0\x87.", tuple(7, 7, 7)],
    ["POP, POP_MARK, DUP", "K\x01K\x02K\x0302(K\x09K\x091\x86.", tuple(2, 2)],
    ["PROTO, FRAME", "\x80\x05\x95\x02\0\0\0\0\0\0\0N.", null],
    [
      "GLOBAL, STACK_GLOBAL",
      "ctorch\nint8\n\x8c\x05torch\x8c\x05uint8\x93\x86.",
      tuple({ kind: "global", name: "torch.int8" }, { kind: "global", name: "torch.uint8" }),
    ],
    ["REDUCE of torch.Size", "ctorch\nSize\n(K\x02K\x03t\x85R.", tuple(2, 3)],
    [
      "REDUCE of _codecs.encode",
      "c_codecs\nencode\nX\x02\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86R.",
      bytesOf("\xff"),
    ],
    ["INST, OBJ", "(iargparse\nNamespace\n(cargparse\nNamespace\no\x86.", tuple(namespace(), namespace())],
    [
      "copyreg._reconstructor",
      "ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR.",
      namespace(),
    ],
  ])("%s", (_, text, value) => {
    expect(read(text)).toEqual(value);
  });

  it("give a record its state, with slots, without, and as a tuple of its own", () => {
    const dict = (key: string) => `}U\x01${key}K\x01s`;
    const fields = (text: string) => expectKind(read(text), "record", "it", {}).fields;
    expect([...fields(`cargparse\nNamespace\n)\x81${dict("a")}b.`)]).toEqual([["a", 1]]);
    expect([...fields(`cargparse\nNamespace\n)\x81${dict("a")}${dict("b")}\x86b.`).keys()]).toEqual([
      "a",
      "b",
    ]);
    expect([...fields(`cargparse\nNamespace\n)\x81N${dict("b")}\x86b.`).keys()]).toEqual(["b"]);
    const own = expectRecord(read("c_io\nBytesIO\n)\x81(C\x01aK\0Ntb."), ["_io.BytesIO"], "it", {});
    expect(own.state).toEqual(tuple(bytesOf("a"), 0, null));
  });

  it("let a list hold itself", () => {
    const value = expectKind(read("]\x94h\0a."), "list", "it", {});
    expect(value.items[0]).toBe(value);
  });

  it("end where the pickle ends", () => {
    expect(readPickle(bytesOf("N.rest"), { file: "x" }).end).toBe(2);
  });
});

function namespace(): PickleValue {
  return { kind: "record", name: "argparse.Namespace", args: [], fields: new Map(), items: [], entries: [] };
}

describe("what is not listed", () => {
  const uses = (text: string): string[] => {
    const seen: GlobalUse[] = [];
    try {
      readPickle(bytesOf(text), { file: "x", base: 100, onGlobal: (use) => seen.push(use) });
    } catch {
      seen.push({ name: "fault", called: false, listed: true, offset: 0 });
    }
    return seen.map(
      ({ name, called, listed, offset }) => `${name}${called ? "()" : ""}${listed ? "" : " !"} ${offset}`,
    );
  };

  it("is told as it comes, with its place, up to a fault", () => {
    expect(uses("ctorch\nSize\n0cos\nsystem\nN\x85R\xff")).toEqual([
      "torch.Size 100",
      "os.system ! 113",
      "os.system() ! 126",
      "fault 0",
    ]);
  });

  it("stays one named value, whatever is done to it", () => {
    for (const rest of [
      "",
      "N\x85R",
      ")\x81",
      "}b",
      "N\x85R}b",
      "N\x85RNa",
      "N\x85RNNs",
      "N\x85R(NNu",
      "N\x85R(e",
      "N\x85R)R",
    ]) {
      expect(read(`cos\nsystem\n${rest}.`), rest).toMatchObject({ kind: "opaque", name: "os.system" });
    }
  });

  it("is an error only where its value is needed, which names it", async () => {
    const value = entriesByText(read("}(U\x01a(i__main__\nX\nU\x01bK\x01u."), "it", {});
    expect(value.get("b")).toBe(1);
    expect(() => expectShape(value.get("a"), "the shape", { file: "x" })).toThrowError(
      expect.objectContaining({ code: "PICKLE_REFUSED", message: expect.stringContaining("__main__.X") }),
    );
  });

  it("never becomes listed by another spelling", () => {
    for (const name of [
      "torch.Size.__class__",
      "torch.size",
      "Torch.Size",
      "torch.Size ",
      "os.system",
      "megatron.core.enums.os.system",
      "megatron.core.enums",
    ]) {
      expect(meaningOf(name), name).toBeUndefined();
    }
    for (const name of ["torch.Size", "megatron.core.enums.ModelType", "torch.bfloat16"])
      expect(meaningOf(name)).toBeDefined();
  });
});

describe("refuses", () => {
  it.each([
    ["a key that Python could not hash", "}]Ns.", "PICKLE_INVALID"],
    ["a key without a value", "}(Nu.", "PICKLE_INVALID"],
    ["what lies below a mark", "N(\x85.", "PICKLE_INVALID"],
    ["arguments that are no tuple", "ctorch\nSize\n]R.", "PICKLE_INVALID"],
    ["a call of a number", "K\x01)R.", "PICKLE_INVALID"],
    ["a call of a dtype", "ctorch\nint8\n)R.", "PICKLE_INVALID"],
    ["a state for a number", "K\x01}b.", "PICKLE_INVALID"],
    ["a state for a class", "cargparse\nNamespace\n}b.", "PICKLE_REFUSED"],
    ["out-of-band buffers", "\x97.", "PICKLE_INVALID"],
    ["text that is no UTF-8", "U\x01\xff.", "PICKLE_INVALID"],
    ["a name that is no text", "NN\x93.", "PICKLE_INVALID"],
    [
      "a tensor of 65 dimensions",
      `ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nByteStorage\nU\x010U\x03cpuK\x01tQK\0(${"K\x01".repeat(65)}t(${"K\x01".repeat(65)}ttR.`,
      "LIMIT_EXCEEDED",
    ],
    ["nothing", "", "TRUNCATED"],
  ])("%s", async (_, text, code) => {
    expect(await codeOf(() => read(text))).toBe(code);
  });
});

/** A few bytes that ask for much, over and over: refused after bounded work, or done without it. */
describe("does not grow", () => {
  const big = `(${"K\x01".repeat(200_000)}`;
  it.each([
    ["copies of a large tuple", `${big}t\x94${"0cbuiltins\nlist\nh\0\x85R".repeat(2000)}.`, "LIMIT_EXCEEDED"],
    [
      "copies of a large dict",
      `${big}d\x94${"0ccollections\nOrderedDict\nh\0\x85R".repeat(2000)}.`,
      "LIMIT_EXCEEDED",
    ],
    [
      "copies of many bytes",
      `X\x40\x42\x0f\0${"a".repeat(1_000_000)}\x94U\x06latin1\x940${"0c_codecs\nencode\nh\0h\x01\x86R".repeat(2000)}.`,
      "LIMIT_EXCEEDED",
    ],
    [
      "a large state, given many times",
      `}(${Array.from({ length: 100_000 }, (_, i) => `U\x06${String(i).padStart(6, "0")}N`).join("")}u\x940cargparse\nNamespace\n)\x81${"h\0b".repeat(5000)}.`,
      "LIMIT_EXCEEDED",
    ],
    [
      "a long name, looked up many times",
      `X\x40\x42\x0f\0${"a".repeat(1_000_000)}\x94${"h\0\x930h\0".repeat(5000)}.`,
      "PICKLE_INVALID",
    ],
    [
      "nested doubling",
      `]\x94${Array.from({ length: 250 }, (_, i) => `]h${String.fromCharCode(i)}ah${String.fromCharCode(i)}a\x94`).join("")}.`,
      "no error",
    ],
    ["a deep stack", "(".repeat(1_000_001), "LIMIT_EXCEEDED"],
    ["millions of empty lists", `${"]0".repeat(5_000_001)}N.`, "LIMIT_EXCEEDED"],
  ])("%s", async (_, text, code) => {
    const before = process.cpuUsage();
    expect(await codeOf(() => read(text))).toBe(code);
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000, "ms of processor time").toBeLessThan(6000);
  });
});
