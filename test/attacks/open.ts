/** Attacks whose answer is still wrong. Each test holds it wrong: whoever mends one takes it off this list. */
export const OPEN: readonly string[] = [];
