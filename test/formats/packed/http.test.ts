import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { packed } from "../../../formats/packed/format.ts";
import { convert } from "../../../src/api/convert.ts";
import type { ByteSource, Store } from "../../../src/core/io.ts";
import { golden, workFolder } from "../../support/goldens.ts";

const work = workFolder();

/** A store over one URL, a ranged request a read. */
function rangedStore(url: string, size: number): Store {
  const open = async (): Promise<ByteSource> => ({
    url,
    size,
    async readInto(target, offset) {
      const range = `bytes=${offset}-${offset + target.byteLength - 1}`;
      const response = await fetch(url, { headers: { range } });
      expect(response.status).toBe(206);
      target.set(new Uint8Array(await response.arrayBuffer()));
    },
    async [Symbol.asyncDispose]() {},
  });
  return { url, open, list: async () => [{ path: "model.isologit", size }] };
}

it("a packed file opens over HTTP with two ranged requests", async () => {
  const path = join(work, "model.isologit");
  await convert(golden("tiny"), path, { verify: "off" });
  const bytes = readFileSync(path);
  const ranges: string[] = [];
  const server = createServer((request, response) => {
    const range = String(request.headers.range);
    ranges.push(range);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range)!;
    response.writeHead(206).end(bytes.subarray(Number(from), Number(to) + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const checkpoint = await packed.read(rangedStore(`http://127.0.0.1:${port}/`, bytes.byteLength));
  server.close();
  expect(ranges.length).toBe(2);
  expect(checkpoint.tensors.length).toBe(58);
  expect(checkpoint.config.model_type).toBe("nemotron_h");
});
