/**
 * Scores of pieces and lists of merges: SentencePiece and llama.cpp merge the two neighbours whose text together has the highest
 * score, Hugging Face's tokenizers the pair that is first in a list.
 */
import { IsologitError } from "../../../src/core/errors.ts";

/** Left and right part. */
export type Merge = readonly [string, string];

export interface ScoredPiece {
  readonly text: string;
  readonly score: number;
}

/** To divide one text takes as many steps as it has characters, each over one part; real vocabularies take some 20 million. */
const MAX_COMPARED_CHARACTERS = 1e9;

/**
 * All merges that give a piece, the highest score first. Of one piece those with the longest left part are first, as in the files
 * of Llama 2.
 *
 * @param pieces by id; of equal scores the first piece is first
 * @throws LIMIT_EXCEEDED for texts so long that dividing them would take minutes
 */
export function mergesOf(pieces: readonly ScoredPiece[]): readonly Merge[] {
  const compared = pieces.reduce((sum, { text }) => sum + text.length ** 2, 0);
  if (compared > MAX_COMPARED_CHARACTERS)
    throw new IsologitError("LIMIT_EXCEEDED", "the tokens of the tokenizer are too long to be divided");
  const texts = new Set(pieces.map(({ text }) => text));
  return pieces
    .toSorted((a, b) => b.score - a.score)
    .flatMap(({ text }) => {
      const merges: Merge[] = [];
      for (let at = text.length - 1; at > 0; at--) {
        const [left, right] = [text.slice(0, at), text.slice(at)];
        if (texts.has(left) && texts.has(right)) merges.push([left, right]);
      }
      return merges;
    });
}

/**
 * Scores by which the pieces are merged in the order of a list: those that a trainer gives, which counts down by id, if ids have
 * that order. A text that no merge gives comes last.
 *
 * @param ids by text
 */
export function scoresOf(
  ids: ReadonlyMap<string, number>,
  merges: readonly Merge[],
): (text: string) => number {
  const merged = [...new Set(merges.map(([left, right]) => left + right))];
  const first = ids.get(merged[0] ?? "") ?? 0;
  const isById = merged.every((text, i) => i === 0 || ids.get(merged[i - 1]!)! < ids.get(text)!);
  if (isById) return (text) => -(ids.get(text)! - first);
  const ranks = new Map(merged.map((text, rank) => [text, rank]));
  return (text) => -(ranks.get(text) ?? ids.size);
}

/** Whether both lists give the same pieces in the same order, and each piece from the same pairs. */
export function areAlike(a: readonly Merge[], b: readonly Merge[]): boolean {
  const pairs = new Set(b.map((pair) => JSON.stringify(pair)));
  return (
    a.length === b.length &&
    a.every(([left, right], i) => left + right === b[i]![0] + b[i]![1]) &&
    a.every((pair) => pairs.has(JSON.stringify(pair)))
  );
}

/** The two parts of a merge in one text. The left part may begin with a space of its own. */
export function mergeIn(text: string): Merge {
  const at = text.indexOf(" ", 1);
  return [text.slice(0, at), text.slice(at + 1)];
}
