/** Decodes tokens to text one by one. A token may end inside a character; that character is returned when it is complete. */
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";

/** Replacement character of an incomplete character. */
const BROKEN = "\ufffd";

interface TextStream {
  /** adds a token; returns the new text, which is empty while a character is incomplete */
  add(id: number): string;
  /** returns the remaining text, including an incomplete character */
  end(): string;
}

/** Creates the text stream of a tokenizer. */
export function createTextStream({ decode }: Pick<Tokenizer, "decode">): TextStream {
  // The text of a token can depend on the tokens before it, so the last returned tokens are decoded again.
  let returned: number[] = [];
  let pending: number[] = [];
  const pendingText = () => decode([...returned, ...pending]).slice(decode(returned).length);
  return {
    add(id) {
      pending.push(id);
      const text = pendingText();
      if (text === "" || text.endsWith(BROKEN)) return "";
      [returned, pending] = [pending, []];
      return text;
    },
    end() {
      const text = pendingText();
      pending = [];
      return text;
    },
  };
}
