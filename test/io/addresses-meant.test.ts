/** A path that looks like a repository of the Hub is no repository, and the error says how to name one. */
import { expect, it } from "vitest";
import { localStore } from "../../src/io/address.ts";

it.each([
  ["nvidia/Nemotron-H-8B", /hf:\/\/nvidia\/Nemotron-H-8B/],
  ["./nvidia/Nemotron-H-8B", /^check the path$/],
  ["nowhere", /^check the path$/],
  ["a/b/c", /^check the path$/],
])("%s", async (path, next) => {
  await expect(localStore(path)).rejects.toMatchObject({
    code: "NOT_FOUND",
    next: expect.stringMatching(next),
  });
});
