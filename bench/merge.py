"""A merge beside a synced copy of the same checkpoint and beside peft's: wall time and peak memory of each.

    python -m bench.merge [--layers 24] [--rank 64] [--rounds 1]

A Llama of random bfloat16 weights in three shards (1.36 B parameters with 24 layers) and an adapter on all its linear
modules. Each merge is a process of its own: `wall` has its imports, `merge` begins when they are done and ends when all
is on the disk. The copy is `cp` and an fsync of what it wrote, into the same folder, and warms the file cache for all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

WIDTH, WORDS, SHARD_BYTES = 2048, 32000, "1GB"
TARGETS = {"of_peft": 0.4, "of_copy": 2.5, "peak_mib": 700}


def make_inputs(folder: Path, layers: int, rank: int) -> int:
    """Write `base` and `adapter` below the folder, in a process that then frees its memory. Returns the parameters."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=5632, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=32, tie_word_embeddings=False,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base", max_shard_size=SHARD_BYTES)
    count: int = sum(parameter.numel() for parameter in model.parameters())
    tuned: Any = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return count


def merge_by_peft(base: Path, adapter: Path, target: Path) -> Callable[[], None]:
    """What a user writes: load in the type of the files, merge_and_unload, save_pretrained."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.models.llama import modeling_llama  # noqa: F401  the model's class, else imported on the way

    def merge() -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        merged.save_pretrained(target, max_shard_size=SHARD_BYTES)

    return merge


def merge_by_us(base: Path, adapter: Path, target: Path) -> Callable[[], None]:
    """What the job does between its first look at the adapter and the folder that it then proves, as its process."""
    from worker.child import prepare_process

    prepare_process()
    import torch
    from transformers.models.llama import modeling_llama  # noqa: F401  as a spare child has it, and as on peft's side

    from worker.artifacts.merge_plan import make_plan
    from worker.artifacts.streaming import stream

    def merge() -> None:
        target.mkdir()
        stream(make_plan(base, adapter, torch.bfloat16, quantised=False), target, None, lambda: None)

    return merge


def sync(folder: Path) -> None:
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def run_alone(who: str, folder: Path) -> None:
    """In a process of its own: merge and print {merge_seconds, peak_mib}."""
    prepare = {"peft": merge_by_peft, "ours": merge_by_us}[who]
    target = folder / who
    merge = prepare(folder / "base", folder / "adapter", target)
    began = time.perf_counter()
    merge()
    sync(target)
    seconds = time.perf_counter() - began
    print(json.dumps({"merge_seconds": round(seconds, 2), "peak_mib": peak_mib()}))


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measured(what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """With the wall time that it took, and the processor's time of the processes that it started."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = what()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": round(time.perf_counter() - began, 2), "cpu_seconds": round(cpu, 2), **found}


def copy(folder: Path) -> dict[str, Any]:
    subprocess.run(["cp", "-r", str(folder / "base"), str(folder / "copy")], check=True)
    sync(folder / "copy")
    return {}


def merge(who: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.merge", "--alone", who, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


SIDES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "copy": copy,
    "ours": partial(merge, "ours"),
    "peft": partial(merge, "peft"),
}


def measure(folder: Path, layers: int, rank: int, rounds: int) -> dict[str, Any]:
    """All three in turn, so that what else the machine does meets all of them; the merges must agree in every byte."""
    made = [sys.executable, "-m", "bench.merge", "--alone", "inputs", "--folder", str(folder)]
    done = subprocess.run([*made, "--layers", str(layers), "--rank", str(rank)], check=True, stdout=subprocess.PIPE)
    copy(folder)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, run in SIDES.items():
            shutil.rmtree(folder / side, ignore_errors=True)
            os.sync()
            runs[side].append(measured(partial(run, folder)))
    found: dict[str, Any] = {side: medians(each) for side, each in runs.items()}
    found |= {"parameters": int(done.stdout.split()[-1]), "rounds": rounds}
    found["tensors_that_differ"] = count_differing(folder / "ours", folder / "peft")
    found["of_peft"] = round(found["ours"]["merge_seconds"] / found["peft"]["merge_seconds"], 3)
    found["processes_of_peft"] = round(found["ours"]["wall_seconds"] / found["peft"]["wall_seconds"], 3)
    found["of_copy"] = round(found["ours"]["merge_seconds"] / found["copy"]["wall_seconds"], 3)
    return found


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def count_differing(ours: Path, peft: Path) -> int:
    from worker.artifacts.tensors import list_tensors, read_tensor

    def tensors(folder: Path) -> dict[str, Any]:
        return {name: each for file in folder.glob("*.safetensors") for name, each in list_tensors(file).items()}

    one, other = tensors(ours), tensors(peft)
    if one.keys() != other.keys():
        return len(one.keys() ^ other.keys())
    return sum(not read_tensor(one[name]).equal(read_tensor(other[name])) for name in one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="of all three; the medians count")
    parser.add_argument("--alone", choices=("inputs", "peft", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where to write 11 GB for the time it takes")
    arguments = parser.parse_args()
    if arguments.alone == "inputs":
        print(make_inputs(arguments.folder, arguments.layers, arguments.rank))
    elif arguments.alone:
        run_alone(arguments.alone, arguments.folder)
    else:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = measure(Path(folder), arguments.layers, arguments.rank, arguments.rounds)
        print(json.dumps({**found, "targets": TARGETS}))


if __name__ == "__main__":
    main()
