/** How attacks change a copy of a golden: its tensors and config by the verbs of an editor, its other files one by one. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { golden } from "../support/goldens.ts";
import { type Copy, copyOf, Editor, written } from "../support/verify/planted.ts";
import { type Answer, made, verify } from "./attack.ts";

export type Change = (editor: Editor) => void;
export const unchanged: Change = () => {};

const copies = new Map<string, Copy>();

/** A golden as one weight file and its side files, changed. */
export async function copied(name: string, folder: string, change: Change = unchanged): Promise<string> {
  const copy = copies.get(name) ?? (await copyOf(golden(name)));
  copies.set(name, copy);
  const editor = new Editor(copy);
  change(editor);
  return written(editor.copy, folder);
}

export interface Pairing {
  readonly golden?: string;
  readonly a?: Change;
  readonly b?: Change;
}

/** A golden twice, changed: what is trusted, and what is judged. */
export async function pair(
  at: string,
  { golden: name = "tiny", a, b }: Pairing,
): Promise<readonly [string, string]> {
  return [await copied(name, join(at, "a"), a), await copied(name, join(at, "b"), b)];
}

/** `verify A B` of such a pair. */
export const compared =
  (pairing: Pairing, ...flags: readonly string[]) =>
  async (at: string): Promise<Answer> =>
    await verify(...(await pair(at, pairing)), ...flags);

/** A golden and its FP8 recast of every projection, and the recast changed. */
export async function recastPair(
  at: string,
  change: Change,
  name = "tiny",
): Promise<readonly [string, string]> {
  const a = await copied(name, join(at, "a"));
  if (!recasts.has(name)) {
    const flags = ["--dtype", "fp8-e4m3", "--recipe", "all-linear", "--verify", "off"];
    recasts.set(name, await copyOf(await made("recast", a, join(at, "fp8"), ...flags)));
  }
  const editor = new Editor(recasts.get(name)!);
  change(editor);
  return [a, written(editor.copy, join(at, "b"))];
}
const recasts = new Map<string, Copy>();

/** Another model of the same shapes. */
export const otherModel: Change = (editor) => {
  for (const name of namesOf(editor, /\.weight$/))
    if (editor.get(name).shape.length === 2) editor.values(name, (value) => value * 1.5);
};

export const namesOf = ({ copy }: Editor, pattern: RegExp): string[] =>
  [...copy.tensors.keys()].filter((name) => pattern.test(name)).sort();

export const fill = (editor: Editor, name: string, value: number): void =>
  editor.get(name).dtype === "F32" ? editor.f32(name, () => value) : editor.values(name, () => value);

export const put = (folder: string, path: string, content: string | Uint8Array): void => {
  mkdirSync(join(folder, path, ".."), { recursive: true });
  writeFileSync(join(folder, path), content);
};

// biome-ignore lint/suspicious/noExplicitAny: JSON of other software, whose keys each attack knows
export function editJson(path: string, change: (json: any) => void): void {
  const json = JSON.parse(readFileSync(path, "utf8"));
  change(json);
  writeFileSync(path, JSON.stringify(json, null, 2));
}

export function editText(path: string, from: string, to: string): void {
  const text = readFileSync(path, "utf8");
  expect(text).toContain(from);
  writeFileSync(path, text.replace(from, to));
}
