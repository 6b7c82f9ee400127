"""A small base from nothing: a tokenizer and a Llama trained on the interactions of others.

For trying everything without a download, and for data in a language or a jargon that no base
knows. Each interaction is one document of the plain prompt format (`query newline response
end-of-text`); documents are shuffled, so that no user's words stand near each other, and packed
whole into windows. It is an ordinary small language model: byte-level BPE, tied embeddings, AdamW,
linear decay.

It knows no memory and no search.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from models.history import Histories
from models.prompt import flatten

END = "<|endoftext|>"
HEAD_WIDTH = 32
_IGNORED = -100


@dataclass(frozen=True)
class PretrainSettings:
    """The base's size and its training.

    `context` is in tokens: of its positions, and of the windows it is trained on. A base answers
    badly at positions that it never saw.
    """

    layers: int = 6
    width: int = 128
    vocabulary: int = 2048
    context: int = 256
    batch: int = 4
    epochs: float = 1.0
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % HEAD_WIDTH:
            raise ValueError(f"expected a width that {HEAD_WIDTH} divides, got {self.width}")


Progress = Callable[[int, int, float], None]


def pretrain(
    data: str | Path,
    out: Path,
    settings: PretrainSettings | None = None,
    progress: Progress = lambda step, steps, loss: None,
) -> None:
    """Train a base on any data the readers know, and write it as transformers does.

    Args:
        data: a file, a folder or the name of a data set.
        out: the new base's folder; must not exist or be empty.
        settings: size and training.
        progress: told (step, steps, loss in nats per token) after each step.

    Raises:
        DataError: a bad line. FileExistsError: the folder holds something.
        ValueError: too little text for a single batch.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: expected a new or empty folder for the base; choose another")
    chosen = settings or PretrainSettings()
    with TemporaryDirectory() as scratch:
        texts = list(documents(Histories.read(data, Path(scratch) / "data")))
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = train_tokenizer(texts, chosen)
    windows_NT, targets_NT = windows(tokenizer, texts, chosen)
    if len(windows_NT) < chosen.batch:
        raise ValueError(
            f"expected text for at least {chosen.batch} windows of {chosen.context} tokens, "
            f"got {len(windows_NT)}; give more data"
        )
    model = LlamaForCausalLM(_config(tokenizer, chosen))
    _train(model, windows_NT, targets_NT, chosen, progress)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def every_tenth(say: Callable[[str], None]) -> Progress:
    """Progress that says a line at every tenth of the way."""

    def report(step: int, steps: int, loss: float) -> None:
        if step * 10 // steps > (step - 1) * 10 // steps:
            say(f"pretraining: step {step} of {steps}, {loss:.2f} nats per token")

    return report


def documents(histories: Histories) -> Iterator[str]:
    """Every interaction as one text, user by user."""
    for user in histories.user_ids:
        for interaction in histories.load(user).interactions:
            query = "" if interaction.query is None else flatten(interaction.query) + "\n"
            yield query + flatten(interaction.response)


def train_tokenizer(texts: list[str], settings: PretrainSettings) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose one special token begins, ends and pads."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END
    )


def windows(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], settings: PretrainSettings
) -> tuple[Tensor, Tensor]:
    """Shuffled whole documents in windows `[N, T]`, and their targets with the padding ignored."""
    end = int(tokenizer.eos_token_id)
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    order = torch.randperm(len(encoded)).tolist()
    packed: list[list[int]] = [[end]]
    for i in order:
        document = [*encoded[i], end][: settings.context - 1]
        if len(packed[-1]) + len(document) > settings.context:
            packed.append([end])
        packed[-1] += document
    windows_NT = torch.full((len(packed), settings.context), end)
    targets_NT = torch.full((len(packed), settings.context), _IGNORED)
    for row, tokens in enumerate(packed):
        windows_NT[row, : len(tokens)] = torch.tensor(tokens)
        targets_NT[row, 1 : len(tokens)] = torch.tensor(tokens[1:])
    return windows_NT, targets_NT


def _config(tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings) -> LlamaConfig:
    heads = settings.width // HEAD_WIDTH
    end = tokenizer.eos_token_id
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=round(settings.width * 8 / 3 / 64) * 64,
        num_hidden_layers=settings.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def _train(
    model: LlamaForCausalLM,
    windows_NT: Tensor,
    targets_NT: Tensor,
    settings: PretrainSettings,
    progress: Progress,
) -> None:
    """AdamW over random batches: 5 % warm-up, then constant, the last half linear to nothing."""
    steps = max(1, int(settings.epochs * len(windows_NT) / settings.batch))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, settings.learning_rate, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, steps))
    native = torch.cpu._is_avx512_bf16_supported()
    for step, batch in enumerate(_batches(len(windows_NT), settings.batch, steps)):
        with torch.autocast("cpu", torch.bfloat16, enabled=native):
            hidden_BTD = model.model(input_ids=windows_NT[batch, :-1]).last_hidden_state
            goal_BT = targets_NT[batch, 1:]
            real = goal_BT != _IGNORED
            logits_NV = model.lm_head(hidden_BTD[real])
        loss = torch.nn.functional.cross_entropy(logits_NV.float(), goal_BT[real])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, loss.item())


def _batches(count: int, size: int, steps: int) -> Iterator[Tensor]:
    """Random batches, each window once before any comes again."""
    order = torch.randperm(count)
    start = 0
    for _ in range(steps):
        if start + size > count:
            order, start = torch.randperm(count), 0
        yield order[start : start + size]
        start += size


def _factor(step: int, steps: int) -> float:
    warm_up = 0.05 * steps + 1
    return min(1.0, (step + 1) / warm_up, max(0.02, 2 * (1 - step / steps)))
