"""vLLM's offline interface, as far as docs/recording-references.md uses it. OFF_BY_ONE forgets the first, empty entry."""
import os
from dataclasses import dataclass

import golden


@dataclass
class SamplingParams:
    max_tokens: int
    prompt_logprobs: int


@dataclass
class Logprob:
    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass
class RequestOutput:
    prompt_logprobs: list


class LLM:
    def __init__(self, model, *, max_logprobs):
        self.model, self.max_logprobs = model, max_logprobs

    def generate(self, prompts, sampling_params):
        ids, k = prompts["prompt_token_ids"], sampling_params.prompt_logprobs
        assert k <= self.max_logprobs and sampling_params.max_tokens == 1
        every = golden.logits(self.model, ids).log_softmax(-1)
        rows = [self.row(every[t], came, k) for t, came in enumerate(ids[1:])]
        return [RequestOutput(rows if "OFF_BY_ONE" in os.environ else [None, *rows])]

    def row(self, logprobs, came, k):
        """The token that came stands first, also where it is among the k likeliest."""
        best, words = logprobs.topk(k)
        rank = int((logprobs >= logprobs[came]).sum())
        pairs = [(came, float(logprobs[came]), rank)]
        pairs += zip(words.tolist(), best.tolist(), range(1, k + 1))
        return {word: Logprob(logprob, rank) for word, logprob, rank in pairs}
