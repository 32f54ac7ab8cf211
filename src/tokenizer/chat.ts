/** What a user says, as a checkpoint's chat template puts it before the model. */
import { Template } from "@huggingface/jinja";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { bytesBeside, CONFIG, jsonBeside } from "./tokenizer.ts";

const TEMPLATE = "chat_template.jinja";

/**
 * The text of a chat in which the user has said `content` and the model is to answer; it says its special tokens itself.
 *
 * @throws USAGE where the checkpoint has no template; CONFIG_INVALID where it does not render
 */
export async function chatOf(checkpoint: Checkpoint, content: string): Promise<string> {
  const config = (await jsonBeside(checkpoint, CONFIG)) ?? {};
  const beside = await bytesBeside(checkpoint, TEMPLATE);
  const template = beside === null ? templateIn(config.chat_template) : new TextDecoder().decode(beside);
  if (template === undefined) {
    const next = { next: "leave `chat` out, and give the text as the model was trained to read it" };
    throw new IsologitError("USAGE", "`chat` was given, and the checkpoint has no chat template", {}, next);
  }
  const [bos, eos] = [config.bos_token, config.eos_token].map(contentOf);
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

/** A template, or the one called "default" of several. */
function templateIn(said: unknown): string | undefined {
  if (typeof said === "string") return said;
  if (!Array.isArray(said)) return undefined;
  const found = said.find((one) => one?.name === "default")?.template;
  return typeof found === "string" ? found : undefined;
}

/** A special token is written as its text, or as a record that has it. */
function contentOf(token: unknown): string | undefined {
  const text = typeof token === "object" && token !== null && "content" in token ? token.content : token;
  return typeof text === "string" ? text : undefined;
}
