"""The file about registries is read strictly, and what it relaxes for one holds for no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from moorage.puller.credentials import FixedKeychain
from moorage.puller.errors import HostsInvalid, Unreachable
from moorage.puller.hosts import Host, HostConfig, Mirror
from moorage.puller.origins import Origin
from moorage.puller.proxies import Proxies
from moorage.puller.remote import RemoteRegistry
from moorage.puller.route import Proxy
from moorage.puller.transport import RetryPolicy


def _load(folder: Path, text: str, **variables: str) -> HostConfig:
    (folder / "hosts.toml").write_text(text)
    return HostConfig.load({"MOORAGE_CONFIG_DIR": str(folder), **variables})


def test_without_a_file_nothing_is_configured(tmp_path: Path) -> None:
    """Loopback is plain HTTP, all else HTTPS with the system's trust."""
    config = HostConfig.load({"HOME": str(tmp_path)})
    assert config.of("r.example:5000") == Host("r.example:5000", Origin("https", "r.example", 5000))
    assert config.of("localhost:5000").origin.scheme == "http"
    assert config.of("docker.io").registry == "registry-1.docker.io"
    assert config.route(Origin.of("https://r.example")).tls is None


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"MOORAGE_CONFIG_DIR": "{}/a", "XDG_CONFIG_HOME": "{}/b"}, "a"),
        ({"XDG_CONFIG_HOME": "{}/b"}, "b/moorage"),
        ({}, ".config/moorage"),
    ],
)
def test_where_the_file_is(tmp_path: Path, variables: dict[str, str], folder: str) -> None:
    """The first of three places."""
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "hosts.toml").write_text('["r.example"]\nplain_http = true\n')
    environment = {name: value.format(tmp_path) for name, value in variables.items()}
    assert HostConfig.load({"HOME": str(tmp_path), **environment}).of("r.example").origin.scheme == "http"


def test_every_setting(tmp_path: Path) -> None:
    """Read as it is meant; names of Docker Hub are one registry."""
    config = _load(
        tmp_path,
        """
        ["docker.io"]
        mirrors = ["mirror.example:5000", "harbor.example/hub/cache"]
        token_realms = ["https://auth.example", "https://auth.example:8443/"]
        ["old.example:5000"]
        plain_http = true
        ["localhost:5001"]
        plain_http = false
        ["lab.example"]
        insecure = true
        """,
    )
    hub = config.of("registry-1.docker.io")
    assert hub.mirrors == (Mirror("mirror.example:5000"), Mirror("harbor.example", "hub/cache"))
    assert [mirror.name_of("library/x") for mirror in hub.mirrors] == ["library/x", "hub/cache/library/x"]
    assert hub.realms == (Origin("https", "auth.example", 443), Origin("https", "auth.example", 8443))
    assert config.of("old.example:5000").origin == Origin("http", "old.example", 5000)
    assert "in the open" in config.of("old.example:5000").remarks[0]
    assert config.of("localhost:5001").origin.scheme == "https"
    assert "not verified" in config.of("lab.example").remarks[0]
    assert config.of("old.example").remarks == hub.remarks == ()


@pytest.mark.parametrize("setting", ['ca = "own.pem"', "insecure = true", 'client_cert = "me.pem"'])
def test_loopback_with_certificates_is_https(tmp_path: Path, setting: str) -> None:
    """Nobody says whom to trust about a registry that is to be spoken to in the open."""
    assert _load(tmp_path, f'["127.0.0.1:5000"]\n{setting}\n').of("127.0.0.1:5000").origin.scheme == "https"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('["r.example"]\nmirror = []', "unknown setting 'mirror'; the nearest", id="misspelt"),
        pytest.param('["r.example"]\nplain-http = true', "the nearest known one is plain_http", id="a dash"),
        pytest.param("[r.example]\ninsecure = true", "in quotes", id="no quotes"),
        pytest.param("plain_http = true", "expected a table for each registry", id="no table"),
        pytest.param('["https://r.example"]\n', "expected a table for each registry", id="a URL"),
        pytest.param('["r.example/ns"]\n', "expected a table for each registry", id="a namespace"),
        pytest.param('["r.example:x"]\n', "expected a table for each registry", id="no port"),
        pytest.param('["r.example"]\nplain_http = "yes"', "expected true or false, got", id="a text for a switch"),
        pytest.param('["r.example"]\nmirrors = "m.example"', "expected a list of texts", id="a text for a list"),
        pytest.param('["r.example"]\nmirrors = [1]', "expected a list of texts", id="a list of numbers"),
        pytest.param('["r.example"]\nca = ""', "expected a text", id="empty"),
        pytest.param('["r.example"]\nmirrors = ["https://m.example"]', "expected host", id="a URL as mirror"),
        pytest.param('["r.example"]\nmirrors = ["u:p@m.example"]', "expected host", id="a user in a mirror"),
        pytest.param('["r.example"]\ntoken_realms = ["auth.example"]', "expected https://host", id="no scheme"),
        pytest.param('["r.example"]\ntoken_realms = ["https://a/token"]', "expected https://host", id="a path"),
        pytest.param('["r.example"]\nplain_http = true\ninsecure = true', "goes without", id="http and insecure"),
        pytest.param('["r.example"]\nca = "x"\ninsecure = true', "exclude each other", id="ca and insecure"),
        pytest.param('["r.example"]\nclient_key = "x"', "needs client_cert", id="a key alone"),
        pytest.param('["docker.io"]\n["index.docker.io"]\n', "another table describes", id="two names of one"),
        pytest.param('["R.example"]\n["r.example"]\n', "another table describes", id="two writings of one"),
        pytest.param('["r.example"]\n["r.example"]\n', "cannot be read", id="twice"),
        pytest.param("nonsense", "cannot be read", id="no TOML"),
        pytest.param("\udcff", "cannot be read", id="no UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """In one line that names the file and the setting."""
    (tmp_path / "hosts.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(HostsInvalid) as caught:
        HostConfig.load({"MOORAGE_CONFIG_DIR": str(tmp_path)})
    assert said in str(caught.value)
    assert "hosts.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


class _Secure:
    """Registries on loopback that speak HTTPS with a certificate that no system trusts."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.folder = trustme.CA(), folder
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
        (folder / "rubbish.pem").write_text("rubbish")
        mine = self.authority.issue_cert("me@example.org")
        mine.private_key_and_cert_chain_pem.write_to_path(str(folder / "me.pem"))

    @contextmanager
    def registry(self, *, wants_certificate: bool = False, challenge: str = "") -> Iterator[str]:
        """``localhost:PORT``."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(401 if challenge else 200)
                if challenge:
                    self.send_header("WWW-Authenticate", challenge)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost").configure_cert(context)
        if wants_certificate:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes are the point
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield f"localhost:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture
def secure(tmp_path: Path) -> _Secure:
    return _Secure(tmp_path)


def _ping(registry: str, config: HostConfig) -> None:
    async def ask() -> None:
        policy = RetryPolicy(attempts=1)
        async with RemoteRegistry.connect(registry, keychain=FixedKeychain(None), hosts=config, retry=policy) as remote:
            await remote.ping()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("setting", "works"),
    [("", False), ('ca = "ca.pem"', True), ('ca = "other.pem"', False), ("insecure = true", True)],
    ids=["nothing", "its authority", "another authority", "insecure"],
)
def test_trust_is_given_to_one_registry(secure: _Secure, tmp_path: Path, setting: str, works: bool) -> None:
    """And the one beside it, of the same host and authority, has none of it (rule N3)."""
    with secure.registry() as one, secure.registry() as other:
        tables = f'["{one}"]\nplain_http = false\n{setting}\n["{other}"]\nplain_http = false\n'
        config = _load(tmp_path, tables)
        if works:
            _ping(one, config)
        else:
            with pytest.raises(Unreachable, match=r"(?i)certificate"):
                _ping(one, config)
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            _ping(other, config)


def test_a_client_certificate_is_shown_to_its_registry(secure: _Secure, tmp_path: Path) -> None:
    """And to no other: without it the registry refuses."""
    with secure.registry(wants_certificate=True) as one, secure.registry(wants_certificate=True) as other:
        table = '["{}"]\nplain_http = false\nca = "ca.pem"\n'
        config = _load(tmp_path, f'{table.format(one)}client_cert = "me.pem"\n{table.format(other)}')
        _ping(one, config)
        with pytest.raises(Unreachable):
            _ping(other, config)


def test_a_token_service_is_not_trusted_with_its_registry(secure: _Secure, tmp_path: Path) -> None:
    """That the registry's certificate is not verified says nothing about another port of its host (rule N3)."""
    with secure.registry() as service, secure.registry(challenge=f'Bearer realm="https://{service}/token"') as registry:
        config = _load(tmp_path, f'["{registry}"]\nplain_http = false\ninsecure = true\n')
        with pytest.raises(Unreachable, match=r"(?i)token.*certificate"):
            _ping(registry, config)


@pytest.mark.parametrize(
    "setting", ['ca = "none.pem"', 'ca = "rubbish.pem"', 'client_cert = "none.pem"', 'client_cert = "ca.pem"'],
)  # fmt: skip
def test_certificates_that_cannot_be_used(secure: _Secure, tmp_path: Path, setting: str) -> None:
    """Are said, with the setting that names them."""
    config = _load(tmp_path, f'["r.example"]\n{setting}\n')
    with pytest.raises(HostsInvalid, match=setting.partition(" ")[0]):
        config.route(Origin.of("https://r.example"))


_TEXTS = st.text() | st.text("htps:/@[].*,-0123456789abcdef²\\%?#")


@given(_TEXTS, _TEXTS)
def test_any_text_may_stand_in_the_variables(proxy: str, direct: str) -> None:
    """It means something, or it is refused."""
    with contextlib.suppress(HostsInvalid):
        proxies = Proxies.of({"HTTPS_PROXY": proxy, "NO_PROXY": direct})
        for url in ("https://r.example:5000", "https://10.1.2.3", "https://[fd00::1]"):
            proxies.of_origin(Origin.of(url))


@given(_TEXTS, st.sampled_from(["mirrors", "token_realms"]), _TEXTS)
def test_any_text_may_stand_in_the_file(name: str, setting: str, text: str) -> None:
    """It means something, or it is refused."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(HostsInvalid):
        document = f"[{json.dumps(name)}]\n{setting} = [{json.dumps(text)}]\n"
        (Path(folder) / "hosts.toml").write_text(document)
        host = HostConfig.load({"MOORAGE_CONFIG_DIR": folder}).of(name)
        assert all(mirror.registry for mirror in host.mirrors)
        assert all(realm.host for realm in host.realms)


_PROXY = Proxy(Origin("http", "proxy.example", 3128))
_TLS_PROXY = Proxy(Origin("http", "secure.example", 80), "Basic dTpwJA==")


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "https://r.example", None),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "https://r.example", _PROXY),
        ({"https_proxy": "proxy.example:3128"}, "https://r.example", _PROXY),
        ({"HTTPS_PROXY": "http://u:p%24@secure.example"}, "https://r.example", _TLS_PROXY),
        ({"HTTPS_PROXY": "http://proxy.example:3128"}, "http://r.example", None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http://r.example", _PROXY),
        ({"HTTP_PROXY": "http://proxy.example:3128", "REQUEST_METHOD": "GET"}, "http://r.example", None),
        ({"http_proxy": "http://proxy.example:3128", "REQUEST_METHOD": "GET"}, "http://r.example", _PROXY),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http://127.0.0.1:5000", None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http://localhost", None),
        ({"HTTP_PROXY": "http://proxy.example:3128"}, "http://[::1]", None),
        ({"ALL_PROXY": "http://proxy.example:3128"}, "https://r.example", _PROXY),
        ({"all_proxy": "proxy.example:3128"}, "http://r.example", _PROXY),
        ({"ALL_PROXY": "http://other.example", "HTTPS_PROXY": "proxy.example:3128"}, "https://r.example", _PROXY),
        ({"ALL_PROXY": "http://proxy.example:3128", "NO_PROXY": "r.example"}, "https://r.example", None),
        ({"ALL_PROXY": "http://proxy.example:3128"}, "http://127.0.0.1:5000", None),
    ],
)
def test_proxies_of_the_environment(variables: dict[str, str], url: str, expected: Proxy | None) -> None:
    """In capitals or not; never to this machine; a web server's variable is not believed."""
    assert Proxies.of(variables).of_origin(Origin.of(url)) == expected


@pytest.mark.parametrize(
    ("listed", "url", "is_direct"),
    [
        ("r.example", "https://r.example", True),
        ("r.example", "https://sub.r.example", True),
        ("r.example", "https://other-r.example", False),
        (".r.example", "https://sub.r.example", True),
        (".r.example", "https://r.example", False),
        ("*.r.example", "https://sub.r.example", True),
        ("a.example, R.Example ,", "https://r.example", True),
        ("r.example:443", "https://r.example", True),
        ("r.example:5000", "https://r.example", False),
        ("*", "https://anything.example", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.1.2.3", "https://10.1.2.3:5000", True),
        ("10.1.2.3:443", "https://10.1.2.3:5000", False),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("1.2.3", "https://1.2.3.4", False),
        ("r.example:²", "https://r.example", False),
        ("", "https://r.example", False),
    ],
)
def test_some_hosts_are_reached_directly(listed: str, url: str, is_direct: bool) -> None:
    """As ``NO_PROXY`` says, in Go's reading."""
    proxies = Proxies.of({"HTTPS_PROXY": "proxy.example:3128", "NO_PROXY": listed})
    assert (proxies.of_origin(Origin.of(url)) is None) == is_direct


def test_a_proxy_of_another_kind_stops_only_those_who_need_it() -> None:
    """A registry on this machine is reached without; all others say which variable cannot be used."""
    hosts = HostConfig.load({"ALL_PROXY": "socks5://proxy.example", "HOME": "/nowhere"})
    assert hosts.route(Origin.of("http://127.0.0.1:5000")).proxy is None
    with pytest.raises(HostsInvalid, match="ALL_PROXY"):
        hosts.route(Origin.of("https://r.example"))


@pytest.mark.parametrize(
    "value", ["socks5://u:s3cret@proxy.example", "https://u:s3cret@proxy.example", "http://", "http://[x:s3cret"]
)
def test_a_proxy_that_is_none_is_refused(value: str) -> None:
    """By the name of its variable; what it says may be secret."""
    for variable in ("HTTPS_PROXY", "ALL_PROXY"):
        with pytest.raises(HostsInvalid, match=variable) as caught:
            Proxies.of({variable: value})
        assert "s3cret" not in str(caught.value)
    assert "dTpwJA" not in repr(_TLS_PROXY)
