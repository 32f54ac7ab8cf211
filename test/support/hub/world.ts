/** A fake Hub, a cache of its own, and an environment that names both, for one test file. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { type Connection, connect } from "../../../src/hub/connection.ts";
import { hubSettings } from "../../../src/hub/settings.ts";
import type { RetryLimits } from "../../../src/io/retry.ts";
import { type FakeHub, fakeHub, put } from "./fake.ts";

/** Tries as often as the real one, without its pauses. */
export const HASTY: RetryLimits = { failures: 4, firstMs: 1, longestMs: 20 };

export interface World {
  hub: FakeHub;
  /** HF_HOME; the cache is its `hub` */
  home: string;
  readonly env: Readonly<Record<string, string>>;
  connection(changes?: {
    token?: string;
    env?: Record<string, string>;
    xetAboveBytes?: number;
  }): Promise<Connection>;
}

/** Environment variables that tests of the Hub set. */
const VARIABLES = ["HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "HOME"];

/** @param work a folder for this test file */
export function world(work: string): World {
  let runs = 0;
  const here = {} as World;
  Object.defineProperty(here, "env", {
    get: () => ({ HF_ENDPOINT: here.hub.url, HF_HOME: here.home, HOME: here.home }),
  });
  here.connection = async ({ token, env = {}, ...more } = {}) => {
    const settings = await hubSettings({ ...here.env, ...env }, token);
    return connect({ ...settings, patience: HASTY, ...more }, {});
  };
  const before = VARIABLES.map((name) => [name, process.env[name]] as const);
  beforeAll(async () => {
    here.hub = await fakeHub();
  });
  afterAll(() => {
    // other test files run in this process
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  beforeEach(() => {
    here.home = join(work, `home-${runs++}`);
    here.hub.plan = () => undefined;
    here.hub.seen.length = 0;
  });
  afterAll(() => here.hub[Symbol.asyncDispose]());
  return here;
}

/** Every file of a folder, as a repository's. */
export function putFolder(hub: FakeHub, name: string, folder: string): string {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const files = entries.map((entry) => {
    const path = join(entry.parentPath, entry.name);
    return [path.slice(folder.length + 1), readFileSync(path)] as const;
  });
  return put(hub, name, Object.fromEntries(files));
}

/** Bytes that no compression and no luck makes shorter, the same every time. */
export function noise(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}
