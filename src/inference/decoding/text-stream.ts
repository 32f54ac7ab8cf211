/** Text as tokens bring it: a token may end in the middle of a character, which is told when it is whole. */
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";

const BROKEN = "\ufffd";

export interface TextStream {
  /** what may be said of the text after one more token; empty while a character is not whole */
  add(id: number): string;
  /** what was held back, broken as it is */
  end(): string;
}

export function textStream({ decode }: Pick<Tokenizer, "decode">): TextStream {
  // Decoders look at a token's neighbours, so a few that were told already are decoded again.
  let told: number[] = [];
  let untold: number[] = [];
  const more = () => decode([...told, ...untold]).slice(decode(told).length);
  return {
    add(id) {
      untold.push(id);
      const text = more();
      if (text === "" || text.endsWith(BROKEN)) return "";
      [told, untold] = [untold, []];
      return text;
    },
    end() {
      const text = more();
      untold = [];
      return text;
    },
  };
}
