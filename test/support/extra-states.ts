/** States of Transformer Engine that torch pickled. */
import { readFileSync } from "node:fs";
import { readPayload } from "../../formats/codec/transformer-engine/extra-state.ts";
import { memorySource } from "./memory-store.ts";

export const extraState = (name: string): string =>
  new URL(`../../fixtures/extra-states/${name}`, import.meta.url).pathname;

/** The pickle of a state of version 2, without the archive around it. */
export async function delayedState(): Promise<Uint8Array> {
  const bytes = new Uint8Array(readFileSync(extraState("te2-delayed.pt")));
  const source = memorySource("te2-delayed.pt", bytes);
  const payload = await readPayload(source, "te2-delayed.pt", { offset: 0, size: bytes.byteLength });
  if (payload === null || payload instanceof Uint8Array) throw new Error("it holds no byte tensor");
  return bytes.slice(payload.offset, payload.offset + payload.size);
}
