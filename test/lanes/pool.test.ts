import { expect, it } from "vitest";
import { Lane } from "../../src/lanes/pool.ts";

it("a lane whose thread has ended fails what it is asked, waiting or later", async () => {
  const lane = new Lane(2 ** 18);
  await lane.call({ op: "finish" });
  const closing = lane.close();
  const waiting = lane.call({ op: "finish" });
  const failed = expect(waiting).rejects.toMatchObject({ code: "INTERNAL" });
  await closing;
  await failed;
  await expect(lane.call({ op: "finish" })).rejects.toMatchObject({ code: "INTERNAL" });
});
