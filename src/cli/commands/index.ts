/** The commands of this version, in the order of the help text. */
import type { Command } from "../command.ts";
import { auth } from "./auth.ts";
import { cache } from "./cache.ts";
import { check } from "./check.ts";
import { completion } from "./completion.ts";
import { convert } from "./convert.ts";
import { diff } from "./diff.ts";
import { doctor } from "./doctor.ts";
import { download } from "./download.ts";
import { formats } from "./formats.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect.ts";
import { logits } from "./logits.ts";
import { plan } from "./plan.ts";
import { recast } from "./recast.ts";
import { scan } from "./scan.ts";
import { upload } from "./upload.ts";
import { verify } from "./verify.ts";

export const commands: readonly Command[] = [
  convert,
  recast,
  verify,
  inspect,
  check,
  diff,
  scan,
  plan,
  logits,
  generate,
  download,
  upload,
  auth,
  cache,
  doctor,
  formats,
  completion,
];
