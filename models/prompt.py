"""The one prompt format: how a query, a response and a post become tokens.

Training, scoring, serving and export share it, and its name is part of a base's fingerprint: a
memory trained under one format is not loaded under another. This file knows no model and no user.

Plain form, `plain/1`: `[bos] query newline response eos`; a post is `text eos`. Newlines
inside a text become spaces, because a newline ends a query and may end an answer. A tokenizer with
a chat template uses that instead, `chat/1`, with thinking switched off.

Text is data: a special token's spelling inside a user's text is never read as that token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Row:
    """One training or scoring sequence: the loss is on `tokens[predict_from:]`.

    `cut_tokens` counts what did not fit into the context.
    """

    tokens: tuple[int, ...]
    predict_from: int
    cut_tokens: int = 0

    @property
    def predicted(self) -> int:
        """Number of tokens the loss is taken on."""
        return len(self.tokens) - self.predict_from


Message = Mapping[str, str]


def flatten(text: str) -> str:
    """The text on one line: each newline becomes a space."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def newlines(text: str) -> int:
    """How many line breaks `flatten` replaces."""
    return len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1


def fit(prompt: Sequence[int], answer: Sequence[int], context: int) -> Row:
    """A row of at most `context` tokens; the query's oldest words go first, then the answer's end.

    The query keeps at least a quarter of the context (or all of itself, if that is less).
    """
    kept_prompt = min(len(prompt), max(context // 4, context - len(answer), 1))
    kept_answer = min(len(answer), context - kept_prompt)
    cut = len(prompt) + len(answer) - kept_prompt - kept_answer
    tokens = (*prompt[len(prompt) - kept_prompt :], *answer[:kept_answer])
    return Row(tokens, kept_prompt, cut)


class PlainPrompt:
    """Query, newline, response, end-of-text: for bases without a chat template."""

    name = "plain/1"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "expected a tokenizer with an end-of-text token (eos), got one without"
            )
        self._tokenizer = tokenizer
        self._context = context
        self.begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self._end = int(tokenizer.eos_token_id)
        self._newline = self.text("\n")
        self._breaks: dict[int, bool] = {}
        self.stop_ids = frozenset({self._end})

    def text(self, text: str) -> list[int]:
        """Tokens of bare words; special tokens' spellings are split like other words."""
        encoded = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        return list(encoded["input_ids"])

    def prompt(self, query: str) -> list[int]:
        """Tokens after which the answer to `query` begins."""
        return [*self.begin, *self.text(flatten(query)), *self._newline]

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """A conversation as one query: its messages joined by newlines."""
        lines = [
            token for m in messages for token in [*self.text(flatten(m["content"])), *self._newline]
        ]
        return [*self.begin, *lines]

    def pair(self, query: str, response: str) -> Row:
        """A query and its response; the loss is on the response and its end."""
        answer = [*self.text(flatten(response)), self._end]
        return fit(self.prompt(query), answer, self._context)

    def post(self, text: str) -> list[int]:
        """Tokens of a text by itself, closed by end-of-text."""
        return [*self.text(flatten(text)), self._end]

    def ends_answer(self, token: int) -> bool:
        """End-of-text or any token that breaks the line."""
        if token not in self._breaks:
            self._breaks[token] = token in self.stop_ids or "\n" in self._tokenizer.decode([token])
        return self._breaks[token]

    def decode(self, tokens: Sequence[int]) -> str:
        """Words of an answer."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


class ChatPrompt(PlainPrompt):
    """The tokenizer's own chat template, thinking switched off."""

    name = "chat/1"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        super().__init__(tokenizer, context)
        # Many tokenizers know the tokens that begin a turn as special, and have no name for them.
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        self._special = sorted(map(str, special), key=lambda token: (-len(token), token))

    def _clean(self, text: str) -> str:
        for token in self._special:
            text = text.replace(token, " ")
        return text.strip()

    def _template(self, messages: Sequence[Message], open_answer: bool) -> list[int]:
        cleaned = [{"role": m["role"], "content": self._clean(m["content"])} for m in messages]
        text = self._tokenizer.apply_chat_template(
            cleaned, tokenize=False, add_generation_prompt=open_answer, enable_thinking=False
        )
        encoded = self._tokenizer(str(text), add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def prompt(self, query: str) -> list[int]:
        """Tokens after which the answer to `query` begins."""
        return self.messages([{"role": "user", "content": query}])

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """The template's generation prompt for a conversation."""
        return self._template(messages, open_answer=True)

    def pair(self, query: str, response: str) -> Row:
        """A query and its response; what the template writes after the stop token is left out.

        Raises:
            ValueError: the template writes the answer's frame differently once the answer is known.
        """
        user = {"role": "user", "content": query}
        prompt = self._template([user], open_answer=True)
        whole = self._template(
            [user, {"role": "assistant", "content": response}], open_answer=False
        )
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                "expected a chat template whose generation prompt is a prefix of prompt and "
                "answer, got one that differs; remove the tokenizer's chat_template to use the "
                "plain format"
            )
        answer = whole[len(prompt) :]
        ends = [i for i, token in enumerate(answer) if token in self.stop_ids]
        return fit(prompt, answer[: ends[0] + 1] if ends else [*answer, self._end], self._context)

    def ends_answer(self, token: int) -> bool:
        """Only the stop token ends an answer: chat answers may hold line breaks."""
        return token in self.stop_ids


def prompt_format(tokenizer: PreTrainedTokenizerBase, context: int) -> PlainPrompt:
    """The format a tokenizer calls for: its chat template where it has one, plain otherwise."""
    return (ChatPrompt if tokenizer.chat_template else PlainPrompt)(tokenizer, context)
