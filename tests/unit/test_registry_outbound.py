"""What the registry asks of other machines: rule T15, over real TLS."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from moorage.auth.errors import IssuerUnavailable
from moorage.registry import outbound
from moorage.registry.outbound import Outbound, is_public

_AUTHORITY = trustme.CA()


class _Server(http.server.ThreadingHTTPServer):
    """Answers by path, and remembers the requests' lines and Host headers."""

    daemon_threads = True

    def __init__(self, *, is_tls: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str]] = []
        self.names: list[str | None] = []
        self.released = threading.Event()
        if is_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _AUTHORITY.issue_cert("issuer.test", "localhost", "127.0.0.1").configure_cert(context)
            context.sni_callback = lambda _connection, name, _context: self.names.append(name)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust us is what some tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"]))
        if self.path == "/silent":
            self.server.released.wait(60)
            return
        status, location = (302, "/keys") if self.path == "/moved" else (200, "")
        body = (
            bytes(outbound._LARGEST + (self.path == "/huge")) if self.path in ("/large", "/huge") else b'{"keys": []}'
        )
        self.send_response(404 if self.path == "/absent" else status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
        """Nothing is logged."""


def _running(server: _Server) -> Iterator[_Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[_Server]:
    yield from _running(_Server())


@pytest.fixture
def plain() -> Iterator[_Server]:
    yield from _running(_Server(is_tls=False))


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    _AUTHORITY.cert_pem.write_to_path(str(path))
    return str(path)


async def _refusal(url: str, host: str, ca: str | None) -> str:
    with pytest.raises(IssuerUnavailable) as caught:
        await Outbound().fetch(url, host=host, ca=ca)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_document(server: _Server, ca: str) -> None:
    """Of a private address, under the name that the operator wrote down, whatever its case."""
    url = f"https://localhost:{server.port}/keys"
    assert await Outbound().fetch(url, host="LOCALHOST", ca=ca) == b'{"keys": []}'
    assert server.seen == [("/keys", f"localhost:{server.port}")]


async def test_the_connection_goes_where_was_judged(server: _Server, ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once: it has no address any more when the connection is made, and its certificate counts."""

    async def resolve(host: str, port: int, *, is_named: bool) -> list[str]:
        assert (host, port, is_named) == ("issuer.test", server.port, True)
        return ["127.0.0.1"]

    monkeypatch.setattr(outbound, "_resolve", resolve)
    await Outbound().fetch(f"https://issuer.test:{server.port}/keys", host="issuer.test", ca=ca)
    assert (server.seen, server.names) == ([("/keys", f"issuer.test:{server.port}")], ["issuer.test"])
    monkeypatch.setattr(outbound, "_resolve", lambda *_, **__: resolve("issuer.test", server.port, is_named=True))
    assert "certificate verify failed" in await _refusal(f"https://other.test:{server.port}/keys", "other.test", ca)


async def test_every_address_is_tried(server: _Server, ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with two addresses, of which one does not answer."""

    async def resolve(host: str, port: int, *, is_named: bool) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr(outbound, "_resolve", resolve)
    await Outbound().fetch(f"https://issuer.test:{server.port}/keys", host="issuer.test", ca=ca)
    assert len(server.seen) == 1


async def test_a_server_that_nobody_vouches_for(server: _Server) -> None:
    """Without the operator's authority the system's decide."""
    url = f"https://localhost:{server.port}/keys"
    assert "certificate verify failed" in await _refusal(url, "localhost", None)
    assert server.seen == []


async def test_a_missing_authority(server: _Server, tmp_path: Path) -> None:
    """Is an error, not a reason to trust somebody else."""
    await _refusal(f"https://localhost:{server.port}/keys", "localhost", str(tmp_path / "none.pem"))
    assert server.seen == []


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        pytest.param("/moved", "answered 302", id="a redirect"),
        pytest.param("/absent", "answered 404", id="not there"),
        pytest.param("/huge", "larger than 262144 bytes", id="too large"),
    ],
)
async def test_answers_that_are_not_taken(server: _Server, ca: str, path: str, complaint: str) -> None:
    """T15: no redirect is followed, and there is an end to what is read."""
    assert complaint in await _refusal(f"https://localhost:{server.port}{path}", "localhost", ca)
    assert [line for line, _ in server.seen] == [path]


async def test_the_largest_document(server: _Server, ca: str) -> None:
    """Is taken; one byte more is too much (above)."""
    content = await Outbound().fetch(f"https://localhost:{server.port}/large", host="localhost", ca=ca)
    assert len(content) == outbound._LARGEST


async def test_a_server_that_is_silent(server: _Server, ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not hold us up for ever."""
    monkeypatch.setattr(outbound, "_TIME", 0.3)
    assert "no answer within" in await _refusal(f"https://localhost:{server.port}/silent", "localhost", ca)


async def test_nobody_listens(server: _Server, ca: str) -> None:
    """One line, with the URL."""
    server.shutdown()
    server.server_close()
    url = f"https://localhost:{server.port}/keys"
    assert (await _refusal(url, "localhost", ca)).startswith(f"{url}: ")


async def test_the_environments_proxy_is_not_asked(
    server: _Server, plain: _Server, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would decide who the issuer is."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{plain.port}")
    await Outbound().fetch(f"https://localhost:{server.port}/keys", host="localhost", ca=ca)
    assert plain.seen == []


async def test_plain_http_for_loopback_only(plain: _Server) -> None:
    """And only where the operator named it."""
    url = f"http://127.0.0.1:{plain.port}/keys"
    assert await Outbound().fetch(url, host="127.0.0.1", ca=None) == b'{"keys": []}'
    assert "only https is asked for keys" in await _refusal(url, "issuer.test", None)
    assert "only https is asked for keys" in await _refusal("http://issuer.test/keys", "issuer.test", None)
    assert len(plain.seen) == 1


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        pytest.param("https://127.0.0.1/keys", "a private address", id="loopback"),
        pytest.param("https://[::1]/keys", "a private address", id="loopback 6"),
        pytest.param("https://[::ffff:127.0.0.1]/keys", "a private address", id="loopback in 6"),
        pytest.param("https://localhost/keys", "a private address", id="a name for it"),
        pytest.param("https://169.254.169.254/latest", "a private address", id="the cloud's metadata"),
        pytest.param("https://2130706433/keys", "a private address", id="loopback as a number"),
        pytest.param("https://issuer.test@localhost/keys", "not the address of a server", id="a user like a host"),
        pytest.param("https://localhost:6443/keys", "another port than 443", id="another port"),
        pytest.param("file:///etc/passwd", "only https", id="a file"),
        pytest.param("https:///keys", "not the address of a server", id="no host"),
        pytest.param("https://[::1/keys", "", id="broken"),
        pytest.param("\x00", "", id="no URL"),
    ],
)
async def test_where_an_issuer_may_not_send_us(url: str, complaint: str) -> None:
    """T15: what a discovery document names is not what the operator named."""
    assert complaint in await _refusal(url, "issuer.test", None)


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"])
def test_public_addresses(address: str) -> None:
    """What may be asked under any name."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.0.1",
        ),
        *("192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "192.0.0.1"),
        *("::1", "::127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fdff::1", "ff02::1"),
        *("2002:7f00:1::", "2001:0:4136::", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2001:db8::1", "fec0::1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Also those that hide in another: mapped, compatible, 6to4, Teredo, NAT64."""
    assert not is_public(address)
