/** `auth whoami`: the account, and where the token comes from; the token itself is never told. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { whoami } from "../../src/api/whoami.ts";
import { hubSettings } from "../../src/hub/settings.ts";
import { workFolder } from "../support/goldens.ts";
import { world } from "../support/hub/world.ts";

const here = world(workFolder());
const asked = async (env: Record<string, string>, token?: string) =>
  whoami({ settings: await hubSettings({ ...here.env, ...env }, token) });

it("tells account, role and origin", async () => {
  const report = await asked({ HF_TOKEN: "hf_right" });
  expect(report).toEqual({
    name: "owner",
    type: "user",
    organizations: [],
    endpoint: here.hub.url,
    token: { name: "t", role: "write", from: "HF_TOKEN" },
  });
  expect(JSON.stringify(report)).not.toContain("hf_right");
  expect((await asked({ HF_TOKEN: "hf_wrong" }, "hf_right")).token.from).toBe("argument");
});

it("names the file of a saved token", async () => {
  mkdirSync(here.home, { recursive: true });
  writeFileSync(join(here.home, "token"), "hf_right\n");
  expect((await asked({})).token.from).toBe(join(here.home, "token"));
});

it("refuses to guess", async () => {
  const refused = { code: "ACCESS_REFUSED" };
  await expect(asked({})).rejects.toMatchObject({ ...refused, next: expect.stringContaining("HF_TOKEN") });
  await expect(asked({ HF_TOKEN: "hf_wrong" })).rejects.toMatchObject(refused);
  await expect(asked({ HF_TOKEN: "hf_right", HF_HUB_OFFLINE: "1" })).rejects.toMatchObject({
    code: "OFFLINE",
  });
});
