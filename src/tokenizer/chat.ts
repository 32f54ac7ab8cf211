/** Applies the chat template of a checkpoint to the message of a user. */
import { Template } from "@huggingface/jinja";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { textOf } from "./special-tokens.ts";
import { bytesBeside, CONFIG, jsonBeside } from "./tokenizer.ts";

const TEMPLATE = "chat_template.jinja";

/**
 * The text of a chat with one message of the user and the start of an answer. The text contains its special tokens.
 *
 * @param content the message of the user
 * @throws USAGE: the checkpoint has no template; CONFIG_INVALID: the template cannot be rendered
 */
export async function chatOf(checkpoint: Checkpoint, content: string): Promise<string> {
  const config = (await jsonBeside(checkpoint, CONFIG)) ?? {};
  const beside = await bytesBeside(checkpoint, TEMPLATE);
  const template = beside === null ? templateIn(config.chat_template) : new TextDecoder().decode(beside);
  if (template === undefined) {
    const next = { next: "leave `chat` out, and give the text as the model was trained to read it" };
    throw new IsologitError("USAGE", "`chat` was given, and the checkpoint has no chat template", {}, next);
  }
  const [bos, eos] = [config.bos_token, config.eos_token].map(textOf);
  try {
    return new Template(template).render({
      messages: [{ role: "user", content }],
      add_generation_prompt: true,
      ...(bos !== undefined && { bos_token: bos }),
      ...(eos !== undefined && { eos_token: eos }),
    });
  } catch (cause) {
    const message = `the chat template does not render: ${cause instanceof Error ? cause.message : cause}`;
    const file = beside === null ? CONFIG : TEMPLATE;
    throw new IsologitError("CONFIG_INVALID", message, { file }, { cause });
  }
}

/** A template; of several, the template with the name "default". */
function templateIn(template: unknown): string | undefined {
  if (typeof template === "string") return template;
  if (!Array.isArray(template)) return undefined;
  const found = template.find((entry) => entry?.name === "default")?.template;
  return typeof found === "string" ? found : undefined;
}
