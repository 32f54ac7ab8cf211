/** Archives of torch.save: hostile ones end as their manifest says, and tensors lie where the archive says. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { expectKind, isKind } from "../../../formats/codec/pickle/value.ts";
import { pieceOf, readTorch, type TorchArchive } from "../../../formats/codec/torch-zip/read.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { memorySource } from "../../support/memory-store.ts";

const folder = new URL("../../../fixtures/hostile/pickles/", import.meta.url);
const { cases } = JSON.parse(readFileSync(new URL("manifest.json", folder), "utf8")) as {
  cases: { file: string; expect: string; why: string }[];
};
const bytesOf = (name: string) => new Uint8Array(readFileSync(new URL(name, folder)));
const MAX_MS = 2000;

/** What a reader of weights needs of a file: a tensor, or a dict. */
async function load(name: string): Promise<TorchArchive> {
  const archive = await readTorch(memorySource(name, bytesOf(name)), { file: name });
  if (!isKind(archive.value, "tensor") && !isKind(archive.value, "list"))
    expectKind(archive.value, "dict", "what the file holds", { file: name });
  return archive;
}

describe("hostile archives", () => {
  const archives = cases.filter(({ file }) => file.endsWith(".pt"));
  it.each(archives)("$file: $expect, $why", async ({ file, expect: wanted }) => {
    const started = performance.now();
    const outcome = await load(file).then(
      () => "ok",
      (error: unknown) => {
        if (!(error instanceof IsologitError)) throw error;
        expect(error.exit).toBe(3);
        expect(error.at.file).toBe(file);
        return "refuse";
      },
    );
    expect(performance.now() - started).toBeLessThan(MAX_MS);
    expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
    if (wanted === "ok") expect(outcome).toBe("ok");
    if (wanted === "refuse") expect(outcome).toBe("refuse");
  });

  it.each([
    ["reduce-os-system.pt", "PICKLE_REFUSED", "os.system"],
    ["stack-global-exec.pt", "PICKLE_REFUSED", "builtins.exec"],
    ["dotted-global.pt", "PICKLE_REFUSED", "torch.serialization.os.system"],
    ["unknown-global.pt", "PICKLE_REFUSED", "mylib.models.Thing"],
    ["build-on-global.pt", "PICKLE_REFUSED", "torch.Size"],
    ["benign-legacy-format.pt", "UNSUPPORTED", "before version 1.6"],
    ["raw-pickle-system.pt", "UNSUPPORTED", "bare pickle"],
    ["zip-bad-crc.pt", "DIGEST_MISMATCH", "archive/data/0"],
    ["tensor-stride0-bomb.pt", "SPAN_INVALID", "strides [0, 1]"],
  ])("%s gives %s and names %s", async (file, code, named) => {
    const error = await load(file).catch((e: unknown) => e as IsologitError);
    expect(error).toMatchObject({ code });
    expect((error as IsologitError).message).toContain(named);
  });
});

it("a tensor's bytes lie where its piece says", async () => {
  const bytes = bytesOf("benign-tensor.pt");
  const archive = await load("benign-tensor.pt");
  const piece = pieceOf(archive, expectKind(archive.value, "tensor", "it", {}));
  expect(piece).toMatchObject({ file: "benign-tensor.pt", start: [0], shape: [4] });
  expect([...bytes.subarray(piece.offset, piece.offset + 16)]).toEqual([...Array(16).keys()]);
});

it("an archive that is a part of a file has its pieces in the file", async () => {
  const part = bytesOf("benign-tensor.pt");
  const whole = Buffer.concat([Buffer.alloc(1000, 0xee), part, Buffer.alloc(77, 0xee)]);
  const source = memorySource("__0_0.distcp", new Uint8Array(whole));
  const archive = await readTorch(source, {
    file: "__0_0.distcp",
    part: { offset: 1000, size: part.byteLength },
  });
  const { offset } = pieceOf(archive, expectKind(archive.value, "tensor", "it", {}));
  expect([...whole.subarray(offset, offset + 16)]).toEqual([...Array(16).keys()]);
});
