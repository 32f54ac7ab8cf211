/** The reader of this family's config.json. */
import { ConfigJson } from "../../parts/config-json.ts";
import { NULL_REFUSED, ONLY_KEYS, UNREAD_KEYS } from "./other-keys.ts";
import { SETTING_KEYS } from "./setting-keys.ts";

export const configJson = new ConfigJson({
  architectures: ["NemotronHForCausalLM"],
  settings: SETTING_KEYS,
  only: ONLY_KEYS,
  unread: UNREAD_KEYS,
  nullRefused: NULL_REFUSED,
});
