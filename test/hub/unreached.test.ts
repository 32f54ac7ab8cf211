/** A Hub that cannot be reached, tokens that are none, and a cache that lost a file: told at once, with the way on. */
import { existsSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { download } from "../../src/api/download.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import type { Event } from "../../src/core/events.ts";
import { connect } from "../../src/hub/connection.ts";
import { hubStore } from "../../src/hub/read/store.ts";
import { hubSettings } from "../../src/hub/settings.ts";
import { errorOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { HASTY, putFolder, world } from "../support/hub/world.ts";

const work = workFolder();
const here = world(work);
const ADDRESS = { kind: "hub", repo: "owner/name" } as const;

/** A connection to where nothing listens. */
async function nowhere(endpoint: string, events: Event[]) {
  const settings = await hubSettings({ ...here.env, HF_ENDPOINT: endpoint }, undefined, (event) =>
    events.push(event),
  );
  const { onRetry } = settings.patience;
  return connect({ ...settings, patience: { ...HASTY, ...(onRetry !== undefined && { onRetry }) } }, {});
}

describe("a Hub that cannot be reached", () => {
  it("is reported with the cause after three tries, with an event for each of the first two", async () => {
    const events: Event[] = [];
    const connection = await nowhere("http://127.0.0.1:59997", events);
    const error = await errorOf(() => hubStore(connection, ADDRESS));
    expect(error).toMatchObject({ code: "NETWORK", exit: 4 });
    expect(error.message).toMatch(/^http:\/\/127\.0\.0\.1:59997 cannot be reached: .*ECONNREFUSED/);
    expect(error.next).toContain("HF_ENDPOINT");
    expect(events).toEqual(
      [1, 2].map(() => ({ type: "retry", message: error.message, waitSeconds: expect.any(Number) })),
    );
  });

  it.each([
    ["a port that is forbidden", "http://127.0.0.1:9", /bad port/],
    ["a name that nobody knows", "http://nobody.invalid", /ENOTFOUND|EAI_AGAIN/],
  ])("%s", async (_, endpoint, cause) => {
    const error = await errorOf(async () => hubStore(await nowhere(endpoint, []), ADDRESS));
    expect(error.message).toContain(`${endpoint} cannot be reached`);
    expect(error.message).toMatch(cause);
  });
});

it.each(["abc", "api_org_xyz"])("a token without the prefix hf_ is a usage error: %s", async (token) => {
  const error = await errorOf(() => hubSettings(here.env, token));
  expect(error).toMatchObject({ code: "USAGE", exit: 2 });
  expect(error.message).toMatch(/does not begin with hf_/);
  expect(error.message).not.toContain(token);
});

it("the suggested download restores a blob that the cache lost", async () => {
  putFolder(here.hub, "owner/tiny", golden("tiny"));
  const { settings } = await here.connection();
  const { path: snapshot } = await download("owner/tiny", { settings });
  const file = join(snapshot, "model.safetensors");
  rmSync(realpathSync(file));
  const error = await errorOf(() => openCheckpoint(snapshot));
  const [, repo, revision] = /isologit download (\S+) --revision (\w+)/.exec(error.next) ?? [];
  await download(repo!, { settings, revision: revision! });
  expect(existsSync(file)).toBe(true);
  expect(readFileSync(file).equals(readFileSync(join(golden("tiny"), "model.safetensors")))).toBe(true);
  expect((await openCheckpoint(snapshot)).tensors.length).toBe(58);
});
