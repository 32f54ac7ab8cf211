/** Models of blocks with one mixer and one MLP: two layers, which share a number in the names of tensors. */
import { IsologitError } from "../../core/errors.ts";
import type { Layer, Settings } from "../structure.ts";

const IN_BLOCK = 2;

/**
 * The layers of a pattern with a letter for each.
 *
 * @param letters the kind of each letter
 * @throws CONFIG_INVALID for another letter
 */
export const blockLayers =
  (letters: Readonly<Record<string, string>>) =>
  ({ pattern }: Settings): readonly Layer[] =>
    Array.from(String(pattern), (letter, index) => {
      const kind = letters[letter];
      if (kind !== undefined) return { stack: "main", index, kind, inner: index % IN_BLOCK, of: IN_BLOCK };
      const known = Object.keys(letters).join(" ");
      throw new IsologitError(
        "CONFIG_INVALID",
        `layer letter ${JSON.stringify(letter)} is not one of ${known}`,
      );
    });

/** Blocks of a pattern. */
export const blockCount = ({ pattern }: Settings): number => String(pattern).length / IN_BLOCK;
