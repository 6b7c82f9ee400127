"""An encoder as it comes from the hub, made here: BERT with its own words, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

from models import jointly
from models.base import Base
from models.encoder import LONGEST, HubEncoder, encoder_of
from models.history import Interaction
from models.options import Options
from models.personalizer import Budget, Person, Task, UserState, attach, fit
from models.pplug import ITEMS, Pplug
from models.scoring import losses
from models.text import VECTORS, Rag
from tests.tiny import save_tiny_base, tiny_base, tiny_tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    "what", "about", "the", "bread", "dogs", "soup", "rain", "i", "like", "it", "much", "and",
    "not", "today", "?", ".", "##s", "##y",
)  # fmt: skip
CPU = torch.device("cpu")
POSITIONS = 24


def save_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """BERT's kind: words and their parts, [CLS] before and [SEP] after."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


def save_encoder(folder: Path, seed: int = 0, **settings: int) -> str:
    """A random BERT of width 16 with its tokenizer, as the hub keeps them."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": len(SPECIAL) + len(WORDS)}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**{**sizes, **layers, "max_position_embeddings": POSITIONS, **settings})
    model = BertModel(config)
    with torch.no_grad():  # larger than usual, so that texts differ
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def by_hand(source: str, text: str) -> torch.Tensor:
    """The state of [CLS], of length 1, of one text alone."""
    encoded = AutoTokenizer.from_pretrained(source)(text, return_tensors="pt")
    assert encoded["input_ids"][0, 0] == 2
    with torch.no_grad():
        state = AutoModel.from_pretrained(source).eval()(**encoded).last_hidden_state[0, 0]
    return state / state.norm()


def test_a_text_is_its_first_tokens_state_whatever_it_is_read_beside(tmp_path: Path) -> None:
    source = save_encoder(tmp_path)
    encoder = encoder_of(source, tiny_base())
    texts = ["I like bread", "What about the dogs today?", "rain"] * 15  # more than one batch
    found = encoder.encode(texts)
    assert found.shape == (45, encoder.width) == (45, 16)
    for text, vector in zip(texts[:3], found, strict=False):
        torch.testing.assert_close(vector, by_hand(source, text), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:3], found[42:], atol=1e-5, rtol=0)
    assert float(found[0] @ found[1]) < 0.999


def test_a_text_longer_than_the_encoders_positions_is_cut(tmp_path: Path) -> None:
    assert POSITIONS < LONGEST
    encoder = HubEncoder(save_encoder(tmp_path), CPU)
    long, longer = encoder.encode(["bread " * 22, "bread " * 22 + "dogs " * 500])
    torch.testing.assert_close(long, longer, atol=1e-5, rtol=0)


def test_its_full_name_is_held_to(tmp_path: Path) -> None:
    base, source = tiny_base(), save_encoder(tmp_path)
    first = encoder_of(source, base)
    assert first.name.startswith(f"{source}#sha256=")
    assert encoder_of(first.name, base) is encoder_of(source, base) is first
    of_first = first.name
    del first  # nobody keeps it: the next one asked for is read anew
    again = encoder_of(of_first, base)
    assert again.name == of_first
    del again
    save_encoder(tmp_path, seed=1)
    other = encoder_of(source, base)
    assert other.name != of_first
    with pytest.raises(ValueError, match="words or weights have changed"):
        encoder_of(of_first, base)


def test_its_full_name_changes_with_its_words(tmp_path: Path) -> None:
    source = save_encoder(tmp_path)
    before = HubEncoder(source, CPU).name
    save_tokenizer(tmp_path, WORDS[::-1])
    assert HubEncoder(source, CPU).name != before


def test_what_is_no_encoder_with_its_tokenizer_is_refused(tmp_path: Path) -> None:
    def refused(source: Path, message: str) -> None:
        with pytest.raises(ValueError, match=rf"expected an encoder's folder .*{message}"):
            HubEncoder(str(source), CPU)

    refused(tmp_path / "nowhere", "nowhere")
    no_tokenizer = tmp_path / "no-tokenizer"
    save_encoder(no_tokenizer)
    for file in no_tokenizer.glob("tokenizer*"):
        file.unlink()
    refused(no_tokenizer, "without its tokenizer: .* got one of 5, 5 of them special")
    tiny_tokenizer().save_pretrained(no_tokenizer)
    refused(no_tokenizer, "without its tokenizer: .* at most 22 tokens, got one of")
    refused(save_tiny_base(tmp_path / "decoder"), "a llama, whose first token sees nothing")
    both = tmp_path / "both"
    T5Model(T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
            ).save_pretrained(both)  # fmt: skip
    tiny_tokenizer().save_pretrained(both)
    refused(both, "a t5, whose first token")
    torn = tmp_path / "torn"
    save_encoder(torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    refused(torn, "torn")
    shallow = tmp_path / "shallow"
    save_encoder(shallow)
    config = (shallow / "config.json").read_text()
    (shallow / "config.json").write_text(config.replace('hidden_layers": 2', 'hidden_layers": 3'))
    refused(shallow, r"without the weights encoder\.layer\.2")


def items(user: str, liked: str, count: int = 12) -> tuple[Interaction, ...]:
    asked = ("bread", "dogs", "soup", "rain")
    return tuple(
        Interaction(
            user, float(i), f"what about the {asked[i % 4]}?", f"I like {liked} and {WORDS[i]}"
        )
        for i in range(count)
    )


def task(user: str, options: Options, **others: object) -> Task:
    own = items(user, "bread")
    made = Task(f"{user}/x", user, own[:9], own[9:], options, 1, budget=Budget(1, 1))
    return replace(made, **others)  # type: ignore[arg-type]


def loss_of(method: Pplug | Rag, base: Base, state: UserState | None) -> float:
    asked = [items("ann", "bread")[9:]]
    framed = lambda state, query: method.frame(base, state, query)  # noqa: E731
    (found,) = losses(base, attach(method, base), [state], asked, framed)
    return found.nats


def test_rag_finds_by_the_encoders_cosines_and_serves_with_it(tmp_path: Path) -> None:
    base, source = tiny_base(), save_encoder(tmp_path)
    options = Options((("k", 1), ("budget", 64), ("retriever", "dense")))
    (done,) = fit(Rag(source), base, [task("ann", options)])
    state = done.state
    assert state is not None
    assert state.tensors[VECTORS].shape == (9, 16)
    query = "What about the rain?"
    lines = Rag(source)._pasts.of(base, state).lines
    cosines = [float(by_hand(source, line) @ by_hand(source, query)) for line in lines]
    best = lines[max(range(9), key=lambda i: (round(cosines[i], 5), i))]
    for method in (Rag(source), Rag()):  # a state says which encoder it was made with
        framed = method.frame(base, state, query).query
        assert best in framed
        assert not any(line in framed for line in lines if line not in best)
    assert loss_of(Rag(), base, state) != loss_of(Rag(), base, None)


def test_pplug_learns_and_serves_with_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jointly, "FEWEST_STEPS", 4)
    base, source = tiny_base(), save_encoder(tmp_path / "a")
    options = Options((("temperature", 1.0), ("learning_rate", 1e-3)))
    people = [Person(f"p{n}", items("p", "soup", 6), items("p", "soup", 5)) for n in range(8)]
    method = Pplug(source)
    shared = method.learn(base, people, options, 1)
    (done,) = fit(method, base, [task("ann", options, shared=shared)])
    state = done.state
    assert state is not None
    vectors = [by_hand(source, f"{i.query}\n{i.response}") for i in items("ann", "bread")[:9]]
    torch.testing.assert_close(state.tensors[ITEMS], torch.stack(vectors), atol=1e-5, rtol=0)
    own = loss_of(method, base, state)
    assert own == loss_of(Pplug(), base, state)  # a state says which encoder it was made with
    assert own != loss_of(method, base, None)
    other = Pplug(save_encoder(tmp_path / "b", seed=1))
    (refused,) = fit(other, base, [task("ann", options, shared=shared)])
    assert "learned with the encoder" in str(refused.error)
