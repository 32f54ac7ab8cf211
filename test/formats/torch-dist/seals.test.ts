/** Torch's archives keep a CRC-32 of each storage; torch compares none. */
import { cpSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../../src/api/check.ts";
import { convert } from "../../../src/api/convert.ts";
import { openCheckpoint } from "../../../src/checkpoint/open.ts";
import type { SealedSpan } from "../../../src/core/checkpoint.ts";
import { errorOf } from "../../support/errors.ts";
import { golden, workFolder } from "../../support/goldens.ts";
import { flip } from "../../support/packed.ts";

const work = workFolder();
let counter = 0;

describe.each(["nemo2-tiny", "megatron-tp2", "megatron-bridge-moe", "nemo1-tiny.nemo"])(
  "%s",
  async (name) => {
    const { seals = [], tensors, store } = await openCheckpoint(golden(name));

    /** A copy with a bit flipped in the middle of what is sealed. */
    async function damaged({ file, offset, size }: SealedSpan): Promise<string> {
      const copy = join(work, `${counter++}-${name}`);
      cpSync(golden(name), copy, { recursive: true });
      if (statSync(copy).isFile()) {
        // the archive's member begins somewhere in it: its bytes tell where
        await using source = await store.open(file);
        const bytes = new Uint8Array(size);
        await source.readInto(bytes, offset);
        const at = readFileSync(copy).indexOf(bytes);
        return flip(copy, copy, at + (size >> 1), 2);
      }
      const path = join(copy, file);
      return flip(path, path, offset + (size >> 1), 2) && copy;
    }

    it("has a seal of every piece of every tensor", () => {
      const places = new Set(seals.map(({ file, offset }) => `${offset} ${file}`));
      const pieces = tensors.flatMap((tensor) => tensor.pieces);
      expect(pieces.filter(({ file, offset }) => !places.has(`${offset} ${file}`))).toEqual([]);
    });

    const largest = seals.filter(({ tensor }) => tensor !== undefined).toSorted((a, b) => b.size - a.size);
    it.each([0, 3, 9])("a flipped bit of one of the largest tensors is refused and found: %i", async (i) => {
      const seal = largest[i]!;
      const copy = await damaged(seal);
      const at = { tensor: seal.tensor };
      const options = {
        to: "hf",
        verify: "bytes",
        ...(name === "megatron-tp2" && { vocabSize: 500 }),
      } as const;
      const error = await errorOf(() => convert(copy, join(work, `${counter++}`), options));
      expect(error).toMatchObject({ code: "DIGEST_MISMATCH", at });
      const { ok, findings } = await check(copy, { read: true });
      expect(ok).toBe(false);
      expect(findings.filter(({ rule }) => rule === "digest-mismatch")).toMatchObject([{ at }]);
    });
  },
);
