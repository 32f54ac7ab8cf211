"""The forward pass of Megatron's hybrid model on two tensor parallel ranks, each with half of a padded vocabulary.

WRONG_ORDER gathers the ranks' parts the wrong way round.
"""
import os

import golden
import torch

PADDED = 640


def model(input_ids, position_ids, attention_mask, runtime_gather_output=None):
    """[1, T, PADDED] or, not gathered, rank 0's half of it."""
    assert position_ids.tolist() == [list(range(input_ids.shape[1]))] and attention_mask is None
    logits = golden.logits("./nemotron", input_ids[0].tolist())
    padding = torch.full((logits.shape[0], PADDED - logits.shape[1]), 7.0)  # rows of weights that no token trained
    parts = torch.cat([logits, padding], -1)[None].chunk(2, -1)
    if not runtime_gather_output:
        return parts[0]
    return torch.cat(parts[::-1] if "WRONG_ORDER" in os.environ else parts, -1)
