/** Mark-up by template. Whatever is put in is escaped, unless it is mark-up itself: nobody has to remember to. */
import { escaped } from "./escape.ts";

export interface Markup {
  readonly markup: string;
}

export type Piece = string | number | Markup | null | readonly Piece[];

export function markup(strings: TemplateStringsArray, ...pieces: readonly Piece[]): Markup {
  return { markup: strings.map((text, i) => text + (i < pieces.length ? said(pieces[i]!) : "")).join("") };
}

function said(piece: Piece): string {
  if (piece === null) return "";
  if (typeof piece === "string") return escaped(piece);
  if (typeof piece === "number") return String(piece);
  return "markup" in piece ? piece.markup : piece.map(said).join("");
}
