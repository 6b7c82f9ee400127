"""What is no base is refused by name, and what a base lacks is never filled in at random."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from models.base import Base, check
from tests.tiny import save_tiny_base, tiny_model, tiny_tokenizer

KNOWN = r"one of the families .*gpt2.*llama.*got "


@pytest.mark.parametrize("model_type", ["bert", "t5", "of-the-future"])
def test_an_architecture_is_refused_with_those_that_work(tmp_path: Path, model_type: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    tiny_tokenizer().save_pretrained(tmp_path)
    for refuse in (check, Base.load):
        with pytest.raises(ValueError, match=KNOWN + repr(model_type)):
            refuse(tmp_path)


def test_a_folder_that_holds_no_base_is_named(tmp_path: Path) -> None:
    for refuse in (check, Base.load):
        with pytest.raises(OSError, match=f"got '{tmp_path}': no config.json there"):
            refuse(tmp_path)


def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="expected a base's folder or hub name, got 'nowhere'"):
        check("nowhere")


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match=r"got '.*config\.json' is not a valid JSON file"):
        check(tmp_path)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    weights = save_tiny_base(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{tmp_path}.*damaged file"):
        Base.load(tmp_path, device="cpu")


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_a_model_without_a_head_is_no_base(tmp_path: Path, family: str) -> None:
    tiny_model(family).base_model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"all weights of a causal {family} .* fit lm_head\."):
        Base.load(tmp_path, device="cpu")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    file = save_tiny_base(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_size": 64}))
    with pytest.raises(ValueError, match=r"fit model\.layers\.0\.mlp\.down_proj.* and 11 more"):
        Base.load(tmp_path, device="cpu")


def test_a_base_brings_no_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ran = tmp_path / "base", tmp_path / "ran"
    save_tiny_base(folder)
    (folder / "code.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n"
        f"open({str(ran)!r}, 'w').close()\n"
        "class Own(PreTrainedTokenizerFast): pass\n"
    )
    file = folder / "tokenizer_config.json"
    told = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "code.Own"]}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    for refuse in (check, Base.load):
        with pytest.raises(ValueError, match="expected a tokenizer"):
            refuse(folder)
    assert not ran.exists()


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"token {i}" for i in range(384 - len(tokenizer) + 1)])
    assert max(tokenizer.get_vocab().values()) == 384
    tokenizer.save_pretrained(tmp_path)
    for refuse in (check, lambda folder: Base.load(folder, device="cpu")):
        with pytest.raises(ValueError, match=rf"ids below 384.*{tmp_path}.*got ids up to 384; "):
            refuse(tmp_path)


def test_a_pad_that_was_added_later_needs_no_embedding(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"token {i}" for i in range(384 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "<added pad>"})
    assert tokenizer.pad_token_id == 384
    tokenizer.save_pretrained(tmp_path)
    check(tmp_path)
    base = Base.load(tmp_path, device="cpu")
    assert max(base.prompt.text("say <added pad> to me")) < 384
