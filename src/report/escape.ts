/** Escapes untrusted text (names of tensors, messages, tokens) for XML and HTML. */
import { escapeControls } from "../core/figures.ts";

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Escapes text for an element or a quoted attribute. */
export function escapeMarkup(text: string): string {
  return escapeControls(text).replace(/[&<>"']/g, (mark) => ENTITIES[mark]!);
}
