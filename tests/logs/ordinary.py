"""Fifty megabytes of what healthy jobs print: Lightning, HF Trainer, accelerate, tqdm and friends.

The kinds of line are those of the programs; numbers, paths and names are made up. Words that only
sound bad (error rate, failures: 0, timeout=1800, killed, abort_on_nan) are among them on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

_Dice = random.Random
_TEXT = Path(__file__).with_name("ordinary_output.txt").read_text("utf-8")
START, _, END = _TEXT.partition("-- steps --\n")


def _lightning(dice: _Dice) -> str:
    part = dice.randrange(1, 100)
    bar = "█" * (part // 10) + "▌"
    times = f"00:{part % 60:02d}<00:{99 - part:02d}, {dice.random() * 9:.2f}it/s"
    return f"\rEpoch 1: {part:3d}%|{bar:<10}| {part}/100 [{times}, v_num=0, train_loss=0.{part}]"


def _trainer(dice: _Dice) -> str:
    loss, norm, rate = dice.random(), dice.random() * 3, dice.random() / 1000
    return f"{{'loss': {loss:.4f}, 'grad_norm': {norm:.3f}, 'learning_rate': {rate:.3e}}}"


def _tqdm(dice: _Dice) -> str:
    n = dice.randrange(1000)
    times = f"{n // 60:02d}:{n % 60:02d}<10:00,  1.{n:03d}it/s"
    return f"\r {n // 10}%|{'#' * (n // 100)}| {n}/1000 [{times}]"


def _imagenet(dice: _Dice) -> str:
    n = dice.randrange(5005)
    head = f"Epoch: [{dice.randrange(90)}][{n:4d}/5005]\tTime  0.31 ( 0.4{n % 10})"
    return f"{head}\tData  0.00 ( 0.02)\tLoss {dice.random() * 6:.4e}\tAcc@1  {n % 50}.70 ( 21.2)"


def _megatron(dice: _Dice) -> str:
    n = dice.randrange(50_000)
    head = f" [2026-03-02 10:{n % 60:02d}:{n % 59:02d}] iteration {n:8d}/  500000"
    tail = "number of skipped iterations:   0 | number of nan iterations:   0 |"
    return f"{head} | consumed samples: {n * 64} | lm loss: {dice.random() * 4:.6E} | {tail}"


def _logging(dice: _Dice) -> str:
    n = dice.randrange(9999)
    said = dice.choice((
        f"step {n} loss {dice.random():.4f}",
        f"eval: error 12.{n % 10} %, failures 0, timeout 1800 s",
        f"val_error improved from 0.3 to 0.2{n}",
        "no failed requests, 0 errors, 0 killed workers",
        f"checkpoint {n} saved, previous one deleted",
        f"retrying download of shard {n} (1/5)",
        f"skipped {n % 7} samples that were too long",
        f"peak memory {n} MiB, reserved {n + 9} MiB",
        f"rank {n % 4} of 4: 17 batches left in this epoch",
        "early stopping: killed no trial; stopped early at epoch 9 is off",
    ))  # fmt: skip
    return f"2026-03-02 10:{n % 60:02d}:{n % 59:02d},{n % 1000:03d} - mmengine - INFO - {said}"


def _vllm(dice: _Dice) -> str:
    head = f"INFO 03-02 10:10:{dice.randrange(60):02d} [loggers.py:87] Avg generation throughput:"
    return f"{head} {dice.random() * 900:.1f} tokens/s, Running: 3 reqs, Waiting: 0 reqs"


_LINES: tuple[Callable[[_Dice], str], ...] = (
    _lightning, _trainer, _tqdm, _imagenet, _megatron, _logging, _vllm,
)  # fmt: skip


def _filled(text: str, dice: _Dice) -> str:
    at = f"0302 10:{dice.randrange(10, 60)}:{dice.randrange(10, 60)}"
    return text.format(
        time=f"{at}.{dice.randrange(10**8, 10**9)}", pid=dice.randrange(1000, 99999),
        n=dice.randrange(100, 999), b=dice.randrange(2, 250), port=dice.randrange(20000, 60000),
        d=dice.randrange(1, 9), ms=dice.randrange(100, 999),
    )  # fmt: skip


def output(megabytes: int, seed: int = 5) -> Iterator[bytes]:
    """A whole run: its start, many different steps, its end."""
    dice = _Dice(seed)
    yield _filled(START, dice).encode()
    labels = ("", "", "[rank1]: ", "2: ", "(RayTrainWorker pid=4, ip=10.0.0.7) ", "[default3]:")
    block = "".join(
        dice.choice(labels) + dice.choice(_LINES)(dice) + "\n" for _ in range(20_000)
    ).encode()
    for _ in range(megabytes * 1_000_000 // len(block) + 1):
        yield block
    yield _filled(END, dice).encode()
