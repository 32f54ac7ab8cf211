/** The checkpoint that a copy was made from, if the copy's model card names it. */
import { readSmall } from "../../core/io.ts";
import type { Scene } from "./scene.ts";

const CARD = "README.md";
const MAX_CARD_BYTES = 1024 * 1024;

/** `otherwise`, and the address of the model that the card names as `base_model`. */
export async function sourceOfCopy({ store, files }: Scene, otherwise: string): Promise<string> {
  const card = files.find(({ path }) => path === CARD);
  if (card === undefined || card.size > MAX_CARD_BYTES) return otherwise;
  const text = Buffer.from(await readSmall(store, CARD, MAX_CARD_BYTES)).toString("utf8");
  const front = /^---\r?\n(.*?)\r?\n---/s.exec(text)?.[1] ?? "";
  const base = /^base_model:\s*(?:-\s*)?["']?([\w.-]+\/[\w.-]+)["']?\s*$/m.exec(front)?.[1];
  return base === undefined ? otherwise : `${otherwise}; ${CARD} names hf://${base}`;
}
