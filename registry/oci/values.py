"""Dataclasses whose methods are written when they are first needed.

Law: to everyone who looks, a class made here is the dataclass that the standard library would have made of it:
signature, equality, order, hash, representation, ``fields``, ``replace``, ``asdict``, ``match``, pickle.
Why: for a frozen class the standard library runs the compiler six times, which takes 0.3 ms. A command of the client
loads 80 such classes and makes objects of 30, and that was a fifth of what a small pull took. Here a class takes
0.03 ms, and its ``__init__`` 0.1 ms when its first object is made; making an object is no slower.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool, order: bool = False) -> Callable[[type], type]:
        """As ``dataclasses.dataclass`` with these options; always with slots, so a class has no other's fields."""
        if not slots:
            raise TypeError("a value has slots")
        return lambda plain: _make(plain, frozen=frozen, order=order)


__all__ = ["dataclass", "field"]

_ORDER = ("__lt__", "__le__", "__gt__", "__ge__")
_Method = Callable[..., Any]


class _Later:
    """An attribute of a class that is computed when the class is first asked for it."""

    __slots__ = ("_compute", "_name")

    def __init__(self, compute: Callable[[], object]) -> None:
        self._compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> object:
        value = self._compute()
        setattr(owner, self._name, value)
        return value


def _make(plain: type, *, frozen: bool, order: bool) -> type:
    """The class with slots and methods; what it says itself stands."""
    kinds = getattr(plain, "__annotations__", {})  # its own: there is no other class with fields above it
    names = [name for name, kind in kinds.items() if "ClassVar" not in kind]
    body = {name: thing for name, thing in plain.__dict__.items() if name not in ("__dict__", "__weakref__")}
    defaults = {name: body.pop(name) for name in names if name in body}
    compared = [name for name in names if getattr(defaults.get(name), "compare", True)]
    methods = _comparing(compared, frozen=frozen, order=order)
    methods |= {"__repr__": _show, "__init__": _first_init(lambda: made, defaults), "__match_args__": tuple(names)}
    if frozen:
        methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete, "__setstate__": _restore}
    standard = _Later(lambda: _standard(made, kinds, defaults).__dataclass_fields__)
    methods |= {"__dataclass_fields__": standard, "__signature__": _Later(lambda: _signature(made, defaults))}
    methods["__dataclass_params__"] = _Later(lambda: _standard(made, kinds, defaults).__dataclass_params__)
    own = {"__qualname__": plain.__qualname__, "__slots__": tuple(names)}
    made: type = type(plain)(plain.__name__, plain.__bases__, methods | body | own)
    return made


def _comparing(names: list[str], *, frozen: bool, order: bool) -> dict[str, object]:
    """Equality, order and hash, all of the same fields."""
    key: _Method = operator.attrgetter(*names) if names else lambda _: ()

    def compare(relation: _Method) -> _Method:
        def method(one: object, other: object) -> Any:
            return relation(key(one), key(other)) if other.__class__ is one.__class__ else NotImplemented

        return method

    methods: dict[str, object] = {"__eq__": compare(operator.eq), "__hash__": None}
    if order:
        methods |= {name: compare(getattr(operator, name)) for name in _ORDER}
    if frozen:
        methods["__hash__"] = lambda one: hash(key(one))
    return methods


def _standard(made: type, kinds: Mapping[str, object], defaults: Mapping[str, object]) -> Any:
    """What the standard library says of a class with these fields; no method of it is compiled."""
    body = {"__annotations__": dict(kinds), "__module__": made.__module__, "__doc__": "spares a signature", **defaults}
    return dataclasses.dataclass(init=False, eq=False, repr=False)(type(made.__name__, (), body))


def _first_init(get_class: Callable[[], Any], defaults: Mapping[str, object]) -> _Method:
    def init(one: object, *values: object, **named: object) -> None:
        made = get_class()
        made.__init__ = _write_init(made, defaults)
        made.__init__(one, *values, **named)

    return init


def _write_init(made: Any, defaults: Mapping[str, object]) -> _Method:
    """The function that sets each slot, which is done past ``__setattr__``."""
    names: dict[str, Any] = {"MISSING": MISSING}
    head, lines = [], ["pass"]
    for name in made.__slots__:
        default: Any = defaults.get(name, MISSING)
        factory = default.default_factory if isinstance(default, Field) else MISSING
        default = default.default if isinstance(default, Field) else default
        names |= {f"set_{name}": getattr(made, name).__set__, f"default_{name}": default, f"make_{name}": factory}
        if factory is not MISSING:
            head.append(f"{name}=MISSING")
            lines.append(f"set_{name}(self, make_{name}() if {name} is MISSING else {name})")
        else:
            head.append(name if default is MISSING else f"{name}=default_{name}")
            lines.append(f"set_{name}(self, {name})")
    if hasattr(made, "__post_init__"):
        lines.append("self.__post_init__()")
    exec(f"def __init__(self, {', '.join(head)}):\n " + "\n ".join(lines), names)  # noqa: S102 (our own fields' names)
    written: _Method = names["__init__"]
    written.__qualname__ = f"{made.__qualname__}.__init__"
    written.__annotations__ = {**made.__annotations__, "return": None}
    return written


def _signature(made: Any, defaults: Mapping[str, object]) -> object:
    import inspect  # noqa: PLC0415 (only those who look need it)

    _, *rest = inspect.signature(_write_init(made, defaults)).parameters.values()
    return inspect.Signature(rest)


def _show(one: Any) -> str:
    shown = (each.name for each in dataclasses.fields(one) if each.repr)
    return f"{type(one).__qualname__}({', '.join(f'{name}={getattr(one, name)!r}' for name in shown)})"


def _refuse_to_set(one: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(one: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _restore(one: Any, state: tuple[None, Mapping[str, object]]) -> None:
    for name, value in state[1].items():
        getattr(type(one), name).__set__(one, value)
