#!/usr/bin/env python3
"""Prefill of a prompt by Winnow and by PyTorch with transformers, one after the other.

    bench/prefill_torch.py GGUF TEXT [--tokens 512,2048,7000] [--threads 2] [--repeats 3]

Both sides read the same file, which transformers turns into float32 (it needs the packages torch,
transformers, gguf and accelerate; nothing is downloaded), and the same tokens of TEXT, repeated as
needed. Prints a line per length: the best of the repeats of PyTorch and the median of Winnow's, in
tokens per second. Without torch and transformers it says so and exits with 77.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)


def winnow_rate(binary, args, tokens):
    """Tokens per second of `winnow bench`, which reports medians."""
    command = [binary, "bench", "-m", args.gguf, "-f", args.text, "--context", str(tokens),
               "--method", "full", "--nbits", "16", "-t", str(args.threads),
               "--repeats", str(args.repeats), "--json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return max(row["prefill_tps"] for row in json.loads(out)["results"])


def torch_rate(model, ids, repeats):
    best = float("inf")
    with torch.inference_mode():
        model(ids[:, :64], use_cache=True)  # warm-up
        for _ in range(repeats):
            start = time.perf_counter()
            model(ids, use_cache=True, logits_to_keep=1)
            best = min(best, time.perf_counter() - start)
    return ids.shape[1] / best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf")
    parser.add_argument("text")
    parser.add_argument("--tokens", default="512,2048,7000")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    binary = str(pathlib.Path(__file__).resolve().parent.parent / "build/bin/winnow")
    torch.set_num_threads(args.threads)
    path = pathlib.Path(args.gguf).resolve()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                              dtype=torch.float32).eval()
    text = pathlib.Path(args.text).read_text(encoding="utf-8")
    lengths = [int(part) for part in args.tokens.split(",")]
    ids = tokenizer(text, return_tensors="pt").input_ids
    ids = ids.repeat(1, -(-max(lengths) // ids.shape[1]))
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, float32, "
          f"{args.threads} threads, best of {args.repeats}")
    print("tokens  winnow tok/s  torch tok/s  ratio")
    for tokens in lengths:
        theirs = torch_rate(model, ids[:, :tokens], args.repeats)
        ours = winnow_rate(binary, args, tokens)
        print(f"{tokens:6d}  {ours:12.0f}  {theirs:11.0f}  {ours / theirs:5.2f}", flush=True)


if __name__ == "__main__":
    main()
