"""Values behave like the standard library's dataclasses, whose methods are only written later."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from dataclasses import dataclass as standard
from typing import Any

import pytest
from moorage.registry.oci import Platform
from moorage.registry.oci.values import dataclass, field


def _twins() -> list[type[Any]]:
    made = []
    for decorate in (dataclass, standard):

        @decorate(frozen=True, slots=True, order=True)
        class Box:
            """A box."""

            width: int
            name: str = "box"
            things: list[int] = field(default_factory=list)
            secret: str = field(default="hidden", repr=False)
            note: str = field(default="", compare=False)

            def area(self) -> int:
                return self.width**2

        made.append(Box)
    return made


_OURS, _THEIRS = _twins()


def _both(work: Any) -> list[object]:
    return [_outcome(lambda cls=cls: work(cls)) for cls in (_OURS, _THEIRS)]


def _outcome(work: Any) -> object:
    try:
        return work()
    except (TypeError, AttributeError) as exc:
        return type(exc), str(exc)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda cls: repr(cls(3, things=[1])), id="repr"),
        pytest.param(lambda cls: dataclasses.asdict(cls(3)), id="asdict"),
        pytest.param(lambda cls: dataclasses.astuple(dataclasses.replace(cls(3), width=4)), id="replace"),
        pytest.param(lambda cls: [(one.name, one.default, one.repr) for one in dataclasses.fields(cls)], id="fields"),
        pytest.param(dataclasses.is_dataclass, id="is dataclass"),
        pytest.param(lambda cls: list(inspect.signature(cls).parameters), id="signature"),
        pytest.param(lambda cls: cls(3) == cls(3) != cls(4), id="equal"),
        pytest.param(lambda cls: cls(3, note="a") == cls(3, note="b"), id="equal but for what is not compared"),
        pytest.param(lambda cls: cls(3) == 3, id="equal to something else"),
        pytest.param(lambda cls: [one.name for one in sorted([cls(4), cls(3, "b"), cls(3, "a")])], id="order"),
        pytest.param(lambda cls: cls(3) < 3, id="order with something else"),
        pytest.param(lambda cls: cls(3).things is cls(3).things, id="a list of its own"),
        pytest.param(lambda cls: cls(3).area(), id="method"),
        pytest.param(lambda cls: cls(), id="missing"),
        pytest.param(lambda cls: cls(1, 2, 3, 4, 5, 6), id="too many"),
        pytest.param(lambda cls: cls(1, colour="red"), id="unknown"),
        pytest.param(lambda cls: setattr(cls(3), "width", 4), id="set"),
        pytest.param(lambda cls: delattr(cls(3), "width"), id="delete"),
        pytest.param(lambda cls: hasattr(cls(3), "__dict__"), id="slots"),
        pytest.param(lambda cls: cls.__match_args__, id="match"),
        pytest.param(lambda cls: dataclasses.astuple(copy.deepcopy(cls(3, things=[1]))), id="copy"),
        pytest.param(lambda cls: hash(cls(3)), id="unhashable field"),
        pytest.param(lambda cls: (cls.__doc__, cls.__qualname__, cls.__module__), id="name"),
    ],
)
def test_it_is_like_the_standard_library(work: Any) -> None:
    """Every answer is the one that the standard library's class gives."""
    ours, theirs = _both(work)
    assert ours == theirs


def test_a_value_is_a_key() -> None:
    """Equal values are one key, and survive a pickle."""
    one = Platform("linux", "amd64")
    assert len({one, Platform("linux", "amd64"), Platform("linux", "arm64")}) == 2
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 (our own)


def test_an_equality_of_its_own_stands() -> None:
    """What a class says itself is not written over."""

    @dataclass(frozen=True, slots=True)
    class Word:
        text: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Word) and other.text.lower() == self.text.lower()

        def __hash__(self) -> int:
            return hash(self.text.lower())

    assert {Word("A")} == {Word("a")}


def test_a_changeable_value_is_no_key() -> None:
    """As with the standard library: what may change has no hash."""

    @dataclass(slots=True)
    class Count:
        number: int = 0

        def __post_init__(self) -> None:
            self.number += 1

    count = Count(1)
    count.number += 1
    assert count.number == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(count)


def test_loading_a_class_compiles_nothing() -> None:
    """Why the module exists: the vocabulary is loaded without one call of the compiler for a value."""
    program = (
        "import builtins\n"
        "compiled = []\n"
        "real = builtins.exec\n"
        "builtins.exec = lambda text, *rest: (isinstance(text, str) and compiled.append(text), real(text, *rest))[1]\n"
        "import moorage.puller.events\n"
        "assert not any('Blob' in text for text in compiled), compiled\n"
        "before = len(compiled)\n"
        "from moorage.registry.oci import Platform\n"
        "Platform('linux', 'amd64'), Platform('linux', 'arm64')\n"
        "assert len(compiled) == before + 1, compiled\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
