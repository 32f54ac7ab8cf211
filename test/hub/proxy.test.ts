/** HTTP_PROXY, HTTPS_PROXY and NO_PROXY: who is asked, for what, and who is not. */
import { request as ask, createServer, type Server } from "node:http";
import { type AddressInfo, connect as dial } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { connect } from "../../src/hub/connection.ts";
import { listRevision } from "../../src/hub/read/listing.ts";
import { hubSettings } from "../../src/hub/settings.ts";
import { workFolder } from "../support/goldens.ts";
import { put } from "../support/hub/fake.ts";
import { HASTY, world } from "../support/hub/world.ts";

const here = world(workFolder());
const REPO = "owner/model";
/** what the proxy was asked for: a host to tunnel to, or an address to forward to */
const through: string[] = [];
let server: Server;
let proxy = "";

/** Tunnels and forwards, and leads every name to the fake Hub. */
beforeAll(async () => {
  server = createServer((request, response) => {
    through.push(`${request.method} ${new URL(request.url!).host}`);
    const { pathname, search } = new URL(request.url!);
    const { host, port } = new URL(here.hub.url);
    const onward = ask(
      {
        host: "127.0.0.1",
        port,
        path: pathname + search,
        method: request.method,
        headers: { ...request.headers, host },
      },
      (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      },
    );
    request.pipe(onward);
  });
  server.on("connect", (request, socket) => {
    through.push(`CONNECT ${request.url}`);
    const onward = dial(Number(new URL(here.hub.url).port), "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
      onward.pipe(socket).pipe(onward);
    });
    for (const end of [socket, onward]) end.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
beforeEach(() => {
  through.length = 0;
  here.hub.repositories.clear();
  put(here.hub, REPO, { "config.json": Buffer.from("{}") });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

async function list(endpoint: string, env: Record<string, string>) {
  const settings = await hubSettings({ ...here.env, HF_ENDPOINT: endpoint });
  const connection = await connect({ ...settings, patience: { ...HASTY, failures: 1 } }, env);
  try {
    return (await listRevision(connection, REPO)).files.map(({ path }) => path);
  } finally {
    await connection.dispatcher.destroy();
  }
}

it.each(["HTTP_PROXY", "http_proxy"])("%s resolves a host name that only the proxy knows", async (name) => {
  expect(await list("http://hub.invalid", { [name]: proxy })).toEqual(["config.json"]);
  expect(through.length).toBeGreaterThan(0);
  for (const asked of through) expect(asked).toMatch(/^(CONNECT hub\.invalid:80|GET hub\.invalid)$/);
});

it("HTTPS_PROXY tunnels encrypted requests, which do not use HTTP_PROXY", async () => {
  await expect(list("https://hub.invalid", { HTTPS_PROXY: proxy })).rejects.toMatchObject({
    code: "NETWORK",
  });
  expect(through).toEqual(["CONNECT hub.invalid:443"]);
  await expect(list("https://hub.invalid", { HTTP_PROXY: proxy })).rejects.toMatchObject({ code: "NETWORK" });
});

it.each(["127.0.0.1", "*"])("NO_PROXY=%s uses no proxy", async (NO_PROXY) => {
  expect(await list(here.hub.url, { HTTP_PROXY: proxy, NO_PROXY })).toEqual(["config.json"]);
  expect(through).toEqual([]);
});
