/**
 * Scores of pieces and lists of merges: SentencePiece and llama.cpp merge the two neighbours whose text together has the highest
 * score, Hugging Face's tokenizers the pair that is first in a list.
 */
import { IsologitError } from "../../../src/core/errors.ts";

/** Left and right part. */
export type Merge = readonly [string, string];

interface ScoredPiece {
  readonly text: string;
  readonly score: number;
}

/** To divide one text takes as many steps as it has characters, each over one part; real vocabularies take some 20 million. */
const MAX_COMPARED_CHARACTERS = 1e9;

/**
 * All merges that give a piece, in the order of a list: the highest score first, and of equal scores the longest left part, then
 * the longest right part. So a run of spaces, whose pieces have one score in Llama 2, grows from its left end, as with scores.
 *
 * @param pieces by id; of merges that are equal in all that, the first piece is first
 * @throws LIMIT_EXCEEDED for texts so long that dividing them would take minutes
 */
export function mergesOf(pieces: readonly ScoredPiece[]): readonly Merge[] {
  const compared = pieces.reduce((sum, { text }) => sum + text.length ** 2, 0);
  if (compared > MAX_COMPARED_CHARACTERS)
    throw new IsologitError("LIMIT_EXCEEDED", "the tokens of the tokenizer are too long to be divided");
  const texts = new Set(pieces.map(({ text }) => text));
  const merges: { readonly merge: Merge; readonly score: number }[] = [];
  for (const { text, score } of pieces)
    for (let at = 1; at < text.length; at++) {
      const merge = [text.slice(0, at), text.slice(at)] as const;
      if (texts.has(merge[0]) && texts.has(merge[1])) merges.push({ merge, score });
    }
  return merges.sort((a, b) => b.score - a.score || byLength(a.merge, b.merge)).map(({ merge }) => merge);
}

const byLength = (a: Merge, b: Merge): number => b[0].length - a[0].length || b[1].length - a[1].length;

/**
 * Scores by which pieces are merged in the order of a list: those of a trainer, which count down by id, as long as ids have the
 * order of the list, and lower ones after that. Pieces whose merges lie between each other have one score.
 *
 * @param ids of the pieces that are plain text; none is missing among the pieces that a merge gives
 */
export function scoresOf(
  ids: ReadonlyMap<string, number>,
  merges: readonly Merge[],
): (text: string) => number {
  const all = [...ids.values()];
  const lowest = all.reduce((a, b) => Math.min(a, b), Number.MAX_SAFE_INTEGER);
  const last = new Map(merges.map((merge, i) => [merge.join(""), i]));
  const scores = new Map<string, number>();
  let next = lowest - all.reduce((a, b) => Math.max(a, b), lowest) - 1; // below all that count by id
  let [end, score, before, countsById] = [-1, 0, -1, true];
  for (const [i, merge] of merges.entries()) {
    const text = merge.join("");
    if (i > end) {
      const id = ids.get(text)!;
      countsById &&= id > before;
      score = countsById ? -(id - lowest) : next--;
      before = id;
    }
    end = Math.max(end, last.get(text)!);
    if (!scores.has(text)) scores.set(text, score);
  }
  return (text) => scores.get(text) ?? -(ids.get(text)! - lowest);
}

/**
 * Whether two lists merge the same pairs in the same order. Pairs that give one piece have no order among them, and pairs of one
 * score only that of the lengths of their parts.
 *
 * @param scoreOf of a piece
 */
export function areAlike(
  a: readonly Merge[],
  b: readonly Merge[],
  scoreOf: (text: string) => number | undefined,
): boolean {
  const pairs = new Set(b.map((pair) => JSON.stringify(pair)));
  const isAlike = (one: Merge, other: Merge) => {
    const [text, otherText] = [one.join(""), other.join("")];
    return text === otherText || (scoreOf(text) === scoreOf(otherText) && byLength(one, other) === 0);
  };
  return (
    a.length === b.length && a.every((merge, i) => isAlike(merge, b[i]!) && pairs.has(JSON.stringify(merge)))
  );
}

/** The two parts of a merge in one text. The left part may begin with a space of its own. */
export function mergeIn(text: string): Merge {
  const at = text.indexOf(" ", 1);
  return [text.slice(0, at), text.slice(at + 1)];
}
