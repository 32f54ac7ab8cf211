"""What stands in for software that needs a GPU: Transformers, its two CPU defects put right, rounded as BF16's results are."""
import torch
from transformers import AutoConfig, AutoModelForCausalLM


def logits(folder, ids):
    """[T, V], F32, of a list of ids."""
    config = AutoConfig.from_pretrained(folder)
    config.time_step_min, config.chunk_size = 0.0, len(ids)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].bfloat16().float()
