/** Looks into chat templates. Engines render them with Jinja; outside Jinja's sandbox a template can reach all of Python. */
import type { Finding } from "../core/finding.ts";
import { finding } from "../core/finding.ts";

/** Python's own attributes, by which an expression leaves the values that a renderer gives it. */
const ESCAPE =
  /(?:\.\s*|["'])(?:__[a-z]+__|(?:f|tb|gi|cr|ag|func)_(?:globals|locals|builtins|back|frame|code))(?![\w])|\|\s*attr\s*\(/;

/**
 * A danger, if a template names what leads out of it; null for other templates.
 *
 * @param offset bytes in the file before the template
 */
export function scanTemplate(text: string, file: string, offset = 0): Finding | null {
  const match = ESCAPE.exec(text);
  if (match === null) return null;
  const at = offset + Buffer.byteLength(text.slice(0, match.index));
  const message = `the chat template uses ${match[0]}, which leads to Python's own objects: a renderer without a sandbox runs its code`;
  return finding("template-code", "danger", { file, offset: at }, message);
}
