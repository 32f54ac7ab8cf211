"""The real libraries as a judge: takes one question a line as JSON, gives one answer a line.

{"ask": name, ...} is answered by the function of that name below, as {"is": value} or {"wrong": text}.
Started by judge.ts inside the userland, with the folder of the published checks as its argument.
"""
import base64
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import pickle
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
sys.path.insert(0, sys.argv[1])

import numpy  # noqa: E402
import safetensors  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import check_fp8  # noqa: E402
import hf_logits  # noqa: E402

torch.set_num_threads(2)
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
         "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
LARGEST = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}


def versions():
    """What judges here; compressed-tensors only where PYTHONPATH brings it."""
    found = {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__,
             "safetensors": safetensors.__version__, "numpy": numpy.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["compressed-tensors"] = importlib.metadata.version("compressed-tensors")
    return found


def loads(folder):
    """from_pretrained as a user calls it, no repair of ours: every key met, each weight as the files have it."""
    model, info = loaded(folder)
    return {"faults": faults_of(info), "other": other_than_stored(model, folder), "dtype": name_of(model.dtype)}


def decompresses(folder, tokens):
    """The same for FP8, by compressed-tensors; then its logits in F32, its rounding of activations left out."""
    from transformers.utils.quantization_config import CompressedTensorsConfig

    model, info = loaded(folder, quantization_config=CompressedTensorsConfig(run_compressed=False))
    answer = {"faults": faults_of(info), "other": other_than_stored(model, folder)}
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            module.quantization_scheme.input_activations = None
        if hasattr(module, "time_step_min"):
            module.time_step_min = 0.0  # as hf_logits.py: the CPU path clamps where the fused kernels do not
    torch.nn.Module.float(model)
    theirs, _ = hf_logits.run(model, tokens)
    plain, _ = hf_logits.run(hf_logits.load_model(folder)[0], tokens)
    return answer | hf_logits.measure(plain, theirs)


def logits(folder, prompts):
    """Strict keys, F32 arithmetic, both CPU defects of Transformers put right, against the logits in our files."""
    model, _ = hf_logits.load_model(folder)
    measured = {}
    for key, path in prompts.items():
        ours = load_file(path)
        theirs, _ = hf_logits.run(model, ours["input_ids"].flatten().tolist())
        measured[key] = hf_logits.measure(theirs, ours["logits"].reshape(theirs.shape))
    return measured


def strict(folder):
    """Number of tensors of the model, all of which the folder has, and no other, once its FP8 is decoded."""
    model, _ = hf_logits.load_model(folder)
    return len(model.state_dict())


def fp8(source, folder, dtype):
    """check_fp8.py on the folder: its exit status and all it says."""
    said = io.StringIO()
    sys.argv[1:] = [source, folder, "--dtype", dtype]
    with contextlib.redirect_stdout(said):
        status = check_fp8.main()
    return {"status": status, "said": said.getvalue().splitlines()}


def opened(file):
    """What safe_open sees: each tensor's type, shape, digest and whether it lies at a multiple of its width."""
    header = header_of(file)
    seen = {}
    with safetensors.safe_open(file, "pt") as f:
        metadata = f.metadata()
        for name in f.keys():
            tensor = f.get_tensor(name)
            stored = f.get_slice(name)
            start = header["size"] + header["json"][name]["data_offsets"][0]
            seen[name] = {"dtype": stored.get_dtype(), "shape": stored.get_shape(), "sha256": digest(tensor),
                          "aligned": start % tensor.element_size() == 0}
    return {"metadata": metadata, "tensors": seen}


def accepts(files):
    """Whether the library opens each file: null, or why not."""
    def why(file):
        try:
            with safetensors.safe_open(file, "pt") as f:
                for name in f.keys():
                    f.get_slice(name).get_shape()
            return None
        except Exception as error:  # whatever it says, it refuses
            return f"{type(error).__name__}: {error}"
    return {file: why(file) for file in files}


def parses(files):
    """Of each file, as base64, whether the library reads it."""
    def read(text):
        try:
            safetensors.deserialize(base64.b64decode(text))
            return True
        except Exception:
            return False
    return [read(text) for text in files]


def unpickled(files):
    """What Python makes of each pickle, as base64: its repr, and that it ends where the file does."""
    out = []
    for text in files:
        stream = io.BytesIO(base64.b64decode(text))
        out.append([repr(pickle.load(stream)), stream.read() == b""])
    return out


def awkward(source, folder, dtype):
    """A copy of a one-file model whose numbers are hard to round: every exponent, subnormals, ties of narrower types."""
    shutil.copytree(source, folder)
    stored = load_file(f"{source}/model.safetensors")
    draw = torch.Generator().manual_seed(0)
    width = {2: torch.int16, 4: torch.int32}[TORCH[dtype].itemsize]
    made = {}
    for i, (name, old) in enumerate(sorted(stored.items())):
        words = torch.randint(-(1 << 31), 1 << 31, old.shape, generator=draw, dtype=torch.int64)
        if TORCH[dtype].itemsize == 2:
            words = words >> 16
        if dtype == "F32" and i % 2:  # at the border of BF16: a tie, or one unit beside it
            words = (words & ~0xFFFF) + 0x8000 + torch.randint(-1, 2, old.shape, generator=draw)
        any_bits = words.to(width).view(TORCH[dtype])
        near = torch.randn(old.shape, generator=draw) * 2.0 ** torch.randint(-12, 4, old.shape, generator=draw)
        tied = (near * 256).round() / 256 if i % 3 else near  # ties of F16 and of both FP8 types
        value = any_bits if i % 4 == 0 else tied.to(TORCH[dtype])
        tiny = torch.finfo(TORCH[dtype]).smallest_normal
        value = value if i % 5 else (value.float().clamp(-4, 4) * tiny).to(TORCH[dtype])
        made[name] = value if "embeddings" in name else value.nan_to_num(0.0, 1.0, -1.0)
    save_file(made, f"{folder}/model.safetensors", {"format": "pt"})
    return len(made)


def cast(source, folder):
    """Elements of `folder` that are not what torch makes of `source`'s; FP8 by the scales stored beside them."""
    before, after = load_file(f"{source}/model.safetensors"), load_file(f"{folder}/model.safetensors")
    wrong, cast = {}, 0
    for name, old in before.items():
        if name not in after:  # the scale of a weight that is FP8 no more
            continue
        new = after[name]
        if new.dtype == old.dtype:
            want = old
        else:
            cast += old.numel()
            real = old.float() * before.get(f"{name}_scale", torch.tensor(1.0))
            kind = next(k for k, v in TORCH.items() if v == new.dtype)
            if kind in LARGEST:
                real = (real / after[f"{name}_scale"]).clamp(-LARGEST[kind], LARGEST[kind])
            want = real.to(new.dtype)
        if new.dtype == old.dtype and name.endswith("_scale"):
            continue
        differ = int((bits(new) != bits(want)).sum())
        if differ:
            wrong[name] = differ
    return {"cast": cast, "wrong": wrong}


def config(folder):
    """AutoConfig's reading of config.json."""
    c = transformers.AutoConfig.from_pretrained(folder)
    return {"class": type(c).__name__, "layers": len(c.layers_block_type), "dtype": name_of(c.dtype),
            "time_step_limit": [str(x) for x in (getattr(c, "time_step_limit", None) or [])],
            "quantization": getattr(c, "quantization_config", None)}


def loaded(folder, **more):
    return transformers.NemotronHForCausalLM.from_pretrained(
        folder, dtype="auto", attn_implementation="eager", experts_implementation="eager", output_loading_info=True, **more)


def faults_of(info):
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs", "conversion_errors")
    return {kind: sorted(map(str, info[kind])) for kind in kinds if info.get(kind)}


def other_than_stored(model, folder):
    stored, _ = hf_logits.rename(hf_logits.dequantise(hf_logits.read_tensors(folder)))
    state = model.state_dict()
    return [k for k, v in stored.items() if k not in state or not torch.equal(state[k], v.to(state[k].dtype))]


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def header_of(file):
    with open(file, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        return {"size": 8 + size, "json": json.loads(f.read(size))}


def digest(tensor):
    raw = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()


def bits(tensor):
    """Bit patterns, all NaNs of a type being one."""
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()]
    nan = tensor.float().isnan()
    return torch.where(nan, torch.tensor(-1, dtype=torch.int64), tensor.view(width).long())


QUESTIONS = {f.__name__: f for f in (versions, loads, decompresses, logits, strict, fp8, opened, accepts, parses, unpickled, awkward, cast, config)}

if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"is": QUESTIONS[question.pop("ask")](**question)}
        except Exception as error:  # a refusal is an answer too
            answer = {"wrong": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
