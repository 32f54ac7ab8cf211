/** Markup by template literals: every inserted value is escaped, except markup. */
import { escapeMarkup } from "./escape.ts";

export interface Markup {
  readonly markup: string;
}

type MarkupPart = string | number | Markup | null | readonly MarkupPart[];

export function markup(strings: TemplateStringsArray, ...pieces: readonly MarkupPart[]): Markup {
  return {
    markup: strings.map((text, i) => text + (i < pieces.length ? pieceText(pieces[i]!) : "")).join(""),
  };
}

function pieceText(piece: MarkupPart): string {
  if (piece === null) return "";
  if (typeof piece === "string") return escapeMarkup(piece);
  if (typeof piece === "number") return String(piece);
  return "markup" in piece ? piece.markup : piece.map(pieceText).join("");
}
