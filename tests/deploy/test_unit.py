"""The systemd unit: well written, hardly exposed, and enough for the registry to work in.

That the registry also lives with the unit's system calls is shown in ``test_image``, by the same filter.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.deploy.unit import UNIT, environment, settings
from tests.interop.images import sample_layout
from tests.interop.programs import Program, find
from tests.servers import MoorageProcess

_BIN = "/opt/moorage/bin"
_HERE = Path(sys.executable).parent
_CONFINED = """
import ctypes, os, sys
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 38, 65
libc = ctypes.CDLL(None, use_errno=True)
for option in (PR_SET_NO_NEW_PRIVS, PR_SET_MDWE):
    if libc.prctl(option, 1, 0, 0, 0):
        sys.exit(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
"""


def _installed(tmp_path: Path) -> Path:
    """The unit, with the program where it is on this machine: systemd looks whether it is there."""
    text = UNIT.read_text()
    assert f"ExecStart={_BIN}/moorage" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(_BIN, str(_HERE)))
    return unit


def _analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [find("systemd-analyze"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    """``systemd-analyze verify`` prints nothing about it, and would: a misspelt setting is found."""
    unit = _installed(tmp_path)
    done = _analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtektSystem="))
    assert "ProtektSystem" in _analyze("verify", unit).stderr


def test_exposure(tmp_path: Path) -> None:
    """``systemd-analyze security`` gives 1.4 (of 10, where 10 is bare): what is left is the network, and niceness."""
    done = _analyze("security", "--offline=true", "--threshold=14", _installed(tmp_path))
    level = re.search(r"Overall exposure level for moorage.service: ([0-9.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= 1.4
    assert done.returncode == 0


def test_stopping_takes_less_than_systemd_allows() -> None:
    """Drain delay, drain timeout and what the workers get beyond (5 + 30 + 5 s) end before systemd kills."""
    assert int(settings("TimeoutStopSec")[0]) > 40


def test_the_settings_are_settings_of_ours(tmp_path: Path) -> None:
    """``moorage config check`` takes every variable that the unit sets, and knows each from its source."""
    given = _placed(tmp_path)
    checked = Program((str(_HERE / "moorage"),), tmp_path, given)("config", "check")
    for name, value in given.items():
        assert f"{name.removeprefix('MOORAGE_').lower()}: {value}  (variable {name})" in checked


def test_no_memory_is_writable_and_executable(tmp_path: Path) -> None:
    """With ``MemoryDenyWriteExecute`` and ``NoNewPrivileges``, here set by prctl, images are pushed and pulled."""
    assert settings("MemoryDenyWriteExecute") == settings("NoNewPrivileges") == ["yes"]
    digests = sample_layout(tmp_path / "layout")
    server = MoorageProcess(tmp_path / "root")
    server.command[:0] = [sys.executable, "-c", _CONFINED]
    with server as registry:
        skopeo = Program((find("skopeo"), "--insecure-policy"), tmp_path / "skopeo")
        there = f"docker://{registry.url.removeprefix('http://')}/unit/app:latest"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:app", there)
        assert digests["app"] in skopeo("inspect", "--tls-verify=false", there)


def _placed(tmp_path: Path) -> dict[str, str]:
    """The unit's variables with its folders moved below ``tmp_path``."""
    places = {"/etc/moorage": tmp_path / "etc", "/var/lib/moorage": tmp_path / "lib"}
    for place in places.values():
        place.mkdir(mode=0o700)
    (tmp_path / "etc" / "htpasswd").touch(mode=0o600)
    given = environment()
    for old, new in places.items():
        assert any(old in value for value in given.values()), f"{old} does not stand in the unit"
        given = {name: value.replace(old, str(new)) for name, value in given.items()}
    return given
