"""What torch.load makes of files of Megatron ranks, as JSON on stdout.

  torch_load.py FILE…

{file: {"args": {name: repr}, "iteration": n, "model": {key: {"shape": [...], "dtype": "bfloat16", "sha256": hex}}}}
"""
import hashlib
import json
import sys
import zipfile

import torch

out = {}
for path in sys.argv[1:]:
    if zipfile.ZipFile(path).testzip() is not None:
        raise SystemExit(f"{path}: a checksum is wrong")
    saved = torch.load(path, map_location="cpu", weights_only=False)
    model = {}
    for key, t in saved["model"].items():
        if isinstance(t, torch.Tensor):
            raw = t.contiguous().flatten().view(torch.uint8).numpy().tobytes() if t.numel() else b""
            dtype = str(t.dtype).replace("torch.", "")
            model[key] = {"shape": list(t.shape), "dtype": dtype, "sha256": hashlib.sha256(raw).hexdigest()}
    args = {name: repr(value) for name, value in vars(saved["args"]).items()}
    out[path] = {"args": args, "iteration": saved["iteration"], "model": model}
json.dump(out, sys.stdout)
