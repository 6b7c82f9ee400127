"""Hundreds of trials through one packer: its process may not grow with what it has done."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.cluster import tiny_run
from tests.cluster.tiny_run import USERS, Driver
from tests.tiny import VOCABULARY, tiny_tokenizer

TRIALS = 120  # of each user
WARM = 80  # told trials after which all is in memory that is kept on purpose
# The packer was seen to grow by 17 MB from there to the end: the allocator, and Ray's own records.
# The memories of those trials would be 35 MB more if they were kept, and 100 MB with their AdamW.
GROWTH_BYTES = 40 * 2**20


def write_base(folder: Path) -> Path:
    """A random base whose memories are large enough to be missed if they were never freed."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def packer_bytes(driver: Driver) -> int:
    """Resident memory of the packer; 0 where there is none."""
    return sum(p.memory_info().rss for p in driver.workers() if tiny_run.is_packer(p))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_packer_does_not_grow_with_its_trials(tmp_path: Path) -> None:
    data, base, run = tiny_run.write_data(tmp_path), write_base(tmp_path / "base"), tmp_path / "run"
    words = tiny_run.command(data, base, run, trials=TRIALS, ranks=64)
    driver = Driver(words, tmp_path / "log")
    driver.until(lambda: len(tiny_run.completed(run)) >= WARM, 1800)
    warm = packer_bytes(driver)
    driver.until(lambda: len(tiny_run.completed(run)) >= len(USERS) * TRIALS - 8, 1800)
    last = packer_bytes(driver)
    driver.finish(900)
    print(f"the packer grew from {warm >> 20} to {last >> 20} MiB")
    assert warm > 0
    assert 0 < last < warm + GROWTH_BYTES
