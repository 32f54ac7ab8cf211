/** Files that the program writes, opened by the real safetensors library, and damaged files shown to both. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { readHeader } from "../../formats/codec/safetensors.ts";
import { sha256 } from "../../src/core/hash.ts";
import { splitMix64 } from "../../src/core/random.ts";
import { arraysOf, workFolder } from "../support/goldens.ts";
import { memorySource } from "../support/memory-store.ts";
import { absent, judge, record, titled } from "./judge.ts";
import { isologit, published } from "./program.ts";

const work = workFolder();
const { ask } = judge();

interface Seen {
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly tensors: Readonly<
    Record<string, { dtype: string; shape: number[]; sha256: string; aligned: boolean }>
  >;
}

describe.skipIf(absent !== null)(titled("what is written opens"), () => {
  beforeAll(() => {
    published("tiny", work);
    published("moe", work);
  });

  it.each([
    ["tiny", "f32"],
    ["tiny", "f16"],
    ["tiny", "fp8-e4m3"],
    ["tiny", "fp8-e5m2"],
    ["moe", "bf16"],
    ["moe", "fp8-e4m3"],
  ])("%s as %s", async (name, dtype) => {
    const folder = join(work, `${name}-${dtype}`);
    isologit("recast", join(work, name), folder, "--dtype", dtype, "--verify", "off");
    const file = join(folder, "model.safetensors");
    const { metadata, tensors } = await ask<Seen>("opened", { file });
    const ours = [...(await arraysOf(file))].map(([name, { dtype, shape, bytes }]) => {
      return [name, { dtype, shape, sha256: sha256(bytes), aligned: true }];
    });
    expect(tensors).toEqual(Object.fromEntries(ours));
    expect(metadata).toEqual({ format: "pt" });
    const dtypes = [...new Set(Object.values(tensors).map((tensor) => tensor.dtype))].sort();
    record(
      `${name} as ${dtype}`,
      `${ours.length} tensors, ${dtypes.join(" ")}, each at a multiple of its width`,
    );
  });
});

/** Where we are the stricter, as docs/formats.md says; the library opens these. */
const STRICTER = /^(NAME_INVALID|DUPLICATE_NAME|LIMIT_EXCEEDED|HEADER_INVALID|SIZE_UNSAFE)$/;

describe.skipIf(absent !== null)(titled("damaged files"), () => {
  const folder = new URL("../../fixtures/hostile/safetensors/", import.meta.url).pathname;

  it("that the library refuses we refuse, and what more we refuse is documented", async () => {
    const codes: Record<string, string> = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));
    const names = readdirSync(folder).filter((name) => name !== "expected.json");
    const files = names.map((name) => join(folder, name));
    const verdicts = Object.values(await ask<Record<string, string | null>>("accepts", { files }));
    const opened = names.filter((_, i) => verdicts[i] === null);
    for (const name of names) expect(codes[name], `${name} is refused here`).toBeDefined();
    for (const name of opened) {
      expect(codes[name], name).toMatch(STRICTER);
      record(`opened by the library: ${name}`, `here ${codes[name]}`);
    }
    record("damaged files", `${names.length}; the library refuses ${names.length - opened.length}`);
  });

  it("one byte of a header put, dropped or changed at random: what is read here the library reads", async () => {
    const sample = new Uint8Array(
      readFileSync(new URL("../../fixtures/safetensors-written/empties.safetensors", import.meta.url)),
    );
    const length = Number(new DataView(sample.buffer).getBigUint64(0, true));
    const words = splitMix64(0);
    const below = (n: number) => Number(words() % BigInt(n));
    const letters = new TextEncoder().encode('{}[]",:0123456789 \\-.e_dtypshaF364B\n');
    const files = Array.from({ length: 20_000 }, () => {
      const header = [...sample.subarray(8, 8 + length)];
      for (let edits = 1 + below(2); edits > 0; edits--) {
        header.splice(
          below(header.length),
          below(2),
          ...(below(3) > 0 ? [letters[below(letters.length)]!] : []),
        );
      }
      const file = new Uint8Array(8 + header.length + sample.byteLength - 8 - length);
      new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
      file.set(header, 8);
      file.set(sample.subarray(8 + length), 8 + header.length);
      return file;
    });
    const theirs = await ask<boolean[]>("parses", {
      files: files.map((file) => Buffer.from(file).toString("base64")),
    });
    const ours = await Promise.all(
      files.map((file) =>
        readHeader(memorySource("mutant", file)).then(
          () => true,
          () => false,
        ),
      ),
    );
    const looser = files.filter((_, i) => ours[i] && !theirs[i]);
    expect(looser.map((file) => Buffer.from(file).toString("latin1"))).toEqual([]);
    const count = (verdicts: readonly boolean[]) => verdicts.filter(Boolean).length;
    record(
      "headers edited at random",
      `${files.length}; read here ${count(ours)}, by the library ${count(theirs)}`,
    );
    expect(count(ours)).toBeGreaterThan(100);
  });
});
