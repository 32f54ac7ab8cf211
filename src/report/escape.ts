/** Text of strangers (names of tensors, messages, tokens) made harmless inside XML and HTML. */
import { visible } from "../core/figures.ts";

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text for an element or a quoted attribute. */
export function escaped(text: string): string {
  return visible(text).replace(/[&<>"']/g, (mark) => ENTITIES[mark]!);
}
