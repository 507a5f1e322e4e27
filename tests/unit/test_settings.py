"""Settings: who goes before whom, and what a mistake is answered with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from moorage.puller.commands.ci_tokens import TOKEN, TOKEN_FILE
from moorage.registry.settings import Address, Settings, SettingsError, load_settings


def _file(directory: Path, text: str) -> str:
    path = directory / "moorage.yaml"
    path.write_text(text)
    return os.fspath(path)


def test_without_anything_the_defaults_hold() -> None:
    """An empty environment and no file: the defaults, and that is what is said of their sources."""
    loaded = load_settings({}, {"PATH": "/bin"})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}


def test_flags_before_variables_before_the_file(tmp_path: Path) -> None:
    """Each source goes before the next, setting by setting."""
    file = _file(tmp_path, "root: /file\nworkers: 3\nupload_ttl: 1h\nread_only: true\n")
    environment = {"MOORAGE_ROOT": "/variable", "MOORAGE_WORKERS": "4"}
    loaded = load_settings({"root": "/flag"}, environment, config=file)
    settings = loaded.settings
    assert (settings.root, settings.workers, settings.upload_ttl, settings.read_only) == ("/flag", 4, 3600.0, True)
    assert loaded.sources["root"] == "flag --root"
    assert loaded.sources["workers"] == "variable MOORAGE_WORKERS"
    assert loaded.sources["upload_ttl"] == f"file {file}"
    assert loaded.sources["listen"] == "default"


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """MOORAGE_CONFIG stands for --config."""
    file = _file(tmp_path, "workers: 7\n")
    assert load_settings({}, {"MOORAGE_CONFIG": file}).settings.workers == 7


def test_the_clients_variables_are_none_of_our_business() -> None:
    """A machine that uses the client as well can start a server."""
    environment = {"MOORAGE_STORE": "/s", "MOORAGE_USERNAME": "u", "MOORAGE_PASSWORD": "p", TOKEN: "t", TOKEN_FILE: "f"}
    assert load_settings({}, environment).settings == Settings()


@pytest.mark.parametrize("service", ["MOORAGE", "MOORAGE_REGISTRY"])
def test_a_service_of_our_name_in_kubernetes_is_none_of_our_business(service: str) -> None:
    """Kubernetes puts these into every pod of the namespace, also into ours."""
    environment = {
        f"{service}_SERVICE_HOST": "10.96.0.7",
        f"{service}_SERVICE_PORT": "5000",
        f"{service}_SERVICE_PORT_HTTP": "5000",
        f"{service}_PORT": "tcp://10.96.0.7:5000",
        f"{service}_PORT_5000_TCP": "tcp://10.96.0.7:5000",
        f"{service}_PORT_5000_TCP_PROTO": "tcp",
        f"{service}_PORT_5000_TCP_PORT": "5000",
        f"{service}_PORT_5000_TCP_ADDR": "10.96.0.7",
    }
    assert load_settings({}, environment).settings == Settings()


def test_a_port_that_somebody_meant_is_not_taken_for_a_service() -> None:
    """It is told apart by its value: whoever sets a port learns what the setting is called."""
    with pytest.raises(SettingsError, match="unknown variable MOORAGE_PORT; "):
        load_settings({}, {"MOORAGE_PORT": "5000"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("24h", 86400.0, id="hours"),
        pytest.param("30m", 1800.0, id="minutes"),
        pytest.param("1.5s", 1.5, id="a fraction"),
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("7d", 604800.0, id="days"),
        pytest.param("3600", 3600.0, id="plain seconds"),
        pytest.param(90, 90.0, id="a YAML number"),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    """A duration is a number with a unit, or seconds."""
    assert load_settings({"upload_ttl": text}, {}).settings.upload_ttl == seconds


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("127.0.0.1:5000", Address("127.0.0.1", 5000), id="IPv4"),
        pytest.param("[::1]:5000", Address("::1", 5000), id="IPv6"),
        pytest.param("localhost:0", Address("localhost", 0), id="any port"),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """HOST:PORT, an IPv6 address in brackets; printing gives it back."""
    assert load_settings({"listen": text}, {}).settings.listen == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("workers", "0", id="no workers"),
        pytest.param("workers", "two", id="a word"),
        pytest.param("workers", "٣", id="Arabic digits"),
        pytest.param("workers", True, id="a truth value as a number"),
        pytest.param("workers", 2.5, id="half a worker"),
        pytest.param("listen", "5000", id="no host"),
        pytest.param("listen", "localhost", id="no port"),
        pytest.param("listen", "::1:5000", id="IPv6 without brackets"),
        pytest.param("listen", "localhost:70000", id="port too high"),
        pytest.param("listen", 5000, id="address as a number"),
        pytest.param("upload_ttl", "soon", id="no duration"),
        pytest.param("upload_ttl", "-1h", id="below zero"),
        pytest.param("upload_ttl", "0", id="nothing"),
        pytest.param("read_only", "maybe", id="no truth value"),
        pytest.param("read_only", 1, id="a number as a truth value"),
        pytest.param("root", "", id="empty"),
        pytest.param("root", None, id="nothing in the file"),
        pytest.param("root", "a\nb", id="line break"),
        pytest.param("log_level", "loud", id="no level"),
    ],
)
def test_a_wrong_value_says_which_where_and_what(name: str, value: object) -> None:
    """The message names the setting, its source, what was expected and what was found, in one line."""
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value}, {})
    text = str(caught.value)
    assert text.startswith(f"{name} (flag --{name.replace('_', '-')}): expected ")
    assert repr(value) in text
    assert text.isprintable()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        pytest.param("MOORAGE_WORKER", "MOORAGE_WORKERS", id="a letter short"),
        pytest.param("MOORAGE_READONLY", "MOORAGE_READ_ONLY", id="an underscore short"),
        pytest.param("MOORAGE_CONFIGURATION", "MOORAGE_CONFIG", id="too long"),
        pytest.param("MOORAGE_", "MOORAGE_", id="empty"),
    ],
)
def test_an_unknown_variable_is_refused(variable: str, nearest: str) -> None:
    """A MOORAGE_ variable that nobody knows does not pass in silence."""
    with pytest.raises(SettingsError, match=f"unknown variable {variable}; the nearest known one is {nearest}"):
        load_settings({}, {variable: "1"})


def test_an_unknown_key_of_the_file_is_refused(tmp_path: Path) -> None:
    """Nor does a misspelt line of the file."""
    with pytest.raises(SettingsError, match="unknown setting 'wrokers'; the nearest known one is workers"):
        load_settings({}, {}, config=_file(tmp_path, "wrokers: 3\n"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("workers: [3\n", id="broken YAML"),
        pytest.param("- workers\n", id="a list"),
        pytest.param("workers\n", id="a word"),
        pytest.param("\x00", id="no text"),
        pytest.param("workers: 1\nworkers: 2\n", id="a key twice"),
        pytest.param("!!python/object/apply:os.getcwd []\n", id="YAML that wants to run code"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """The message names the file."""
    file = _file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {}, config=file)
    assert file in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    """A file of comments only is fine."""
    assert load_settings({}, {}, config=_file(tmp_path, "# nothing yet\n")).settings == Settings()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Asking for a file that is not there is an error, not a default."""
    with pytest.raises(SettingsError, match="cannot read"):
        load_settings({}, {}, config=os.fspath(tmp_path / "none"))


def test_certificate_and_key_go_together() -> None:
    """One without the other is a mistake."""
    with pytest.raises(SettingsError, match="tls_cert and tls_key"):
        load_settings({"tls_cert": "/c"}, {})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        pytest.param("https://registry.example.org", "https://registry.example.org", id="a name"),
        pytest.param("https://Registry.Example.org:5000/", "https://registry.example.org:5000", id="a port"),
        pytest.param("http://[::1]:5000", "http://[::1]:5000", id="an address"),
    ],
)
def test_external_urls(text: str, url: str) -> None:
    """Scheme and host, as it stands before /v2/."""
    assert load_settings({"external_url": text}, {}).settings.external_url == url


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("registry.example.org", id="no scheme"),
        pytest.param("ftp://registry.example.org", id="another scheme"),
        pytest.param("https://", id="no host"),
        pytest.param("https://user@registry.example.org", id="a user"),
        pytest.param("https://registry.example.org/registry", id="a path"),
        pytest.param("https://registry.example.org?a=b", id="a query"),
        pytest.param('https://registry"', id="a quote"),
    ],
)
def test_what_is_no_external_url(text: str) -> None:
    """It stands in a header for all clients, so nothing in it is guessed."""
    with pytest.raises(SettingsError, match="external_url"):
        load_settings({"external_url": text}, {})


def test_trusted_proxies(tmp_path: Path) -> None:
    """Addresses and networks, in a flag or as a list in the file; nobody by default (T12)."""
    assert "127.0.0.1" not in load_settings({}, {}).settings.trusted_proxies
    for loaded in (
        load_settings({"trusted_proxies": "10.0.0.0/8, 2001:db8::1"}, {}),
        load_settings({}, {}, config=_file(tmp_path, "trusted_proxies: [10.0.0.0/8, '2001:db8::1']\n")),
    ):
        networks = loaded.settings.trusted_proxies
        assert str(networks) == "10.0.0.0/8,2001:db8::1/128"
        assert all(address in networks for address in ("10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3"))
        assert not any(address in networks for address in ("11.0.0.1", "2001:db8::2", "unix", ""))


@pytest.mark.parametrize("value", ["*", "10.0.0.1/8", "", "localhost", 8, ["10.0.0.0/8", 5]], ids=repr)
def test_what_is_no_network(value: object) -> None:
    """T12: there is no way to write "everybody" by accident; host bits are a mistake somewhere."""
    with pytest.raises(SettingsError, match="trusted_proxies"):
        load_settings({"trusted_proxies": value}, {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param({"htpasswd": "h", "auth": "a"}, "exclude each other", id="both"),
        pytest.param({"htpasswd": "h", "root": "s3://bucket"}, "set signing_key", id="a bucket without a key"),
        pytest.param({"auth": "a", "root": "memory:"}, "set signing_key", id="memory without a key"),
        pytest.param({"signing_key": "k"}, "together with htpasswd or auth", id="a key for nothing"),
        pytest.param({"audit_log": "-"}, "together with htpasswd or auth", id="an audit of nothing"),
    ],
)
def test_login_settings_that_do_not_go_together(flags: dict[str, object], message: str) -> None:
    """Each says what to set instead."""
    with pytest.raises(SettingsError, match=message):
        load_settings(flags, {})


def test_a_root_in_memory_is_one_workers() -> None:
    """Two workers would have two registries, and every other request would find nothing."""
    with pytest.raises(SettingsError, match="set workers to 1"):
        load_settings({"root": "memory:"}, {})
    assert load_settings({"root": "memory:", "workers": 1}, {}).settings.root == "memory:"


def test_the_signing_key_lies_beside_the_root() -> None:
    """Unless it is said where; DESIGN 8."""
    settings = load_settings({"htpasswd": "h", "root": "/images/"}, {}).settings
    assert settings.has_login
    assert settings.signing_key_file == "/images.key"
    assert load_settings({"auth": "a", "signing_key": "/k"}, {}).settings.signing_key_file == "/k"
    assert not load_settings({}, {}).settings.has_login


@pytest.mark.parametrize("root", [".", "./", "./below/.."])
def test_the_signing_key_never_lies_in_the_root(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the root is written: a store that finds the key in its empty root takes it for somebody else's."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({"htpasswd": "h", "root": root}, {}).settings.signing_key_file == f"{tmp_path}.key"
