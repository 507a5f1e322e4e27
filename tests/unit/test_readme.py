"""The README's table of settings says what the server knows, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from moorage.registry.settings import Settings, load_settings

README = Path(__file__).parents[2] / "README.md"
_ROW = re.compile(r"^\| `(--[a-z-]+)` \| `(MOORAGE_[A-Z_]+)` \| (.+?) \|", re.MULTILINE)


def rows() -> dict[str, str]:
    """Environment variable → default, as the README has them."""
    return {variable: default.strip("`") for _, variable, default in _ROW.findall(README.read_text())}


def test_every_setting_is_in_the_table() -> None:
    """A setting that is added, renamed or removed shows here."""
    assert set(rows()) == {f"MOORAGE_{name.upper()}" for name in Settings.__struct_fields__} | {"MOORAGE_CONFIG"}


def test_every_default_is_true() -> None:
    """The defaults in the table, given as variables, change nothing."""
    given = {variable: default for variable, default in rows().items() if default != "none"}
    assert load_settings({}, given).settings == load_settings({}, {}).settings
    assert len(given) > len(rows()) / 2
