"""Small GETs by wrk, which costs less processor time than anything written here could."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.bench.engine import Address, UnexpectedAnswer
from tests.bench.flows import ACCEPT

__all__ = ["Hammered", "hammer"]

_CONNECTIONS = 16

# wrk answers HEAD requests never (it waits for the body), and counts a status above 399 as an error.
_SCRIPT = f"""
wrk.headers["Accept"] = "{ACCEPT}"
wrk.headers["User-Agent"] = "bench"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""
_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Hammered:
    """What wrk counted. Times in seconds, ``received`` in bytes."""

    requests: int
    seconds: float
    received: int
    p50: float
    p99: float


def hammer(
    address: Address, target: str, *, seconds: float, headers: Mapping[str, str] = MappingProxyType({})
) -> Hammered:
    """GETs ``target`` on 16 kept-alive connections for about ``seconds``. ``headers``: further ones.

    Raises:
        UnexpectedAnswer: an error status, a broken connection or a time-out, even one.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "report.lua")
        script.write_text(_SCRIPT)
        url = f"http://{address[0]}:{address[1]}{target}"
        command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        command += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")] + [url]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result = _RESULT.search(ran.stdout)
    if result is None:
        raise UnexpectedAnswer(f"wrk printed no result: {ran.stdout[-500:]}{ran.stderr[-500:]}")
    requests, duration, received, errors, p50, p99 = map(int, result.groups())
    if errors or not requests:
        raise UnexpectedAnswer(f"{errors} errors in {requests} requests for {url}")
    return Hammered(requests, duration / 1e6, received, p50 / 1e6, p99 / 1e6)
