"""Options: one value for each setting, drawn from a small space."""

from __future__ import annotations

import pytest

from models.options import Options, Space, default, drawn, require
from search.space import BASE_CONFIG

SPACE: Space = {"learning_rate": (1e-3, 1e-2), "tokens": (4, 8, 16), "kind": ("mean",)}


def test_the_default_is_drawn_first_and_nothing_twice() -> None:
    found = drawn(SPACE, 5, seed=3)
    assert found[0] == default(SPACE) == Options.of(learning_rate=1e-3, tokens=4, kind="mean")
    assert len(set(found)) == 5
    assert found == drawn(SPACE, 5, seed=3)
    assert len(drawn(SPACE, 100, seed=0)) == 6
    assert drawn({}, 8, seed=0) == [Options()]


def test_a_setting_is_read_as_what_it_is() -> None:
    options = default(SPACE)
    assert (options.number("learning_rate"), options.whole("tokens")) == (1e-3, 4)
    assert options.to_json() == {"learning_rate": 1e-3, "tokens": 4, "kind": "mean"}
    for name in ("kind", "rank"):
        with pytest.raises(ValueError, match=name):
            options.number(name)
    with pytest.raises(ValueError, match="whole number"):
        options.whole("learning_rate")


def test_another_kind_of_configuration_is_refused() -> None:
    assert require(default(SPACE)) == default(SPACE)
    with pytest.raises(ValueError, match=r"expected options .* got a MemoryConfig"):
        require(BASE_CONFIG)
