"""The operator's verbs: what they change, what they print, and where."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from pathlib import Path

import bcrypt
import pytest
from click.testing import CliRunner, Result
from moorage.auth.htpasswd import Htpasswd
from moorage.auth.htpasswd_writer import change_account, check_password
from moorage.auth.secret import SECRET_PATTERN
from moorage.registry.accounts_cli import auth, token, user

_HASH = "$2y$10$" + "." * 53
_RULES = """\
htpasswd: accounts
groups: {dev: [alice, gone]}
rules:
  - {name: developers, who: [group:dev], repositories: ["apps/**"], actions: [pull, push]}
  - {name: robots, who: ["robot:*"], repositories: ["base/*"], actions: [pull]}
anonymous: [{name: public, repositories: ["public/**"], actions: [pull]}]
immutable_tags: [{repositories: ["apps/**"], tags: ["v*"]}]
issuers: [{name: ci, url: "https://ci.acme.test", audience: acme}]
publishers: [{name: web, issuer: ci, claims: {sub: web}, repositories: [apps/web], actions: [pull]}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that we stand in, and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("MOORAGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rules(folder: Path) -> Path:
    """An auth file with one account, a disabled one, and a root for robots."""
    (folder / "accounts").write_text(f"alice:{_HASH}\nbob:!{_HASH}\n")
    (folder / "auth.yaml").write_text(_RULES)
    (folder / "root").mkdir()
    return folder / "auth.yaml"


def _user(*arguments: str, password: str | None = None) -> Result:
    given = ["--htpasswd", "accounts", *(["--password-stdin"] if password is not None else [])]
    return CliRunner().invoke(user, [*arguments, *given], input=password)


def _token(*arguments: str) -> Result:
    return CliRunner().invoke(token, [*arguments, "--root", "root"])


def _test(*arguments: str) -> Result:
    return CliRunner().invoke(auth, ["test", *arguments, "--auth", "auth.yaml", "--root", "root"])


def _is_one_line(result: Result, message: str, status: int = 1) -> None:
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].removeprefix("moorage: ").startswith(message)
    assert status == 2 or len(result.stderr.splitlines()) == 1


def test_the_life_of_an_account(folder: Path) -> None:
    """Added, listed, disabled, let in again with another password; the file is ours alone and servers take it."""
    assert _user("add", "alice", password="correct horse\n").stderr == "alice is added to accounts, which is new\n"
    assert _user("add", "bob", password="battery staple").stderr == "bob is added to accounts\n"
    assert stat.S_IMODE((folder / "accounts").stat().st_mode) == 0o600
    first = Htpasswd.load("accounts").accounts["alice"]
    assert bcrypt.checkpw(b"correct horse", first.hash)
    assert first.cost >= 10
    assert _user("disable", "alice").exit_code == 0
    assert _user("disable", "alice").exit_code == 0
    assert Htpasswd.load("accounts").accounts["alice"].is_disabled
    assert _user("list").stdout == "alice  disabled\nbob    enabled\n"
    assert _user("list", "--json").stdout.splitlines()[0] == '{"name": "alice", "state": "disabled"}'
    changed = _user("passwd", "alice", password="another one")
    assert changed.stderr == "alice has another password now, and is no longer disabled\n"
    assert bcrypt.checkpw(b"another one", Htpasswd.load("accounts").accounts["alice"].hash)
    assert sorted(os.listdir()) == ["accounts"]


@pytest.mark.parametrize(
    ("password", "message"),
    [
        pytest.param("", "the password has 0 characters; 8 are the least", id="none"),
        pytest.param("short\n", "the password has 5 characters; 8 are the least", id="short"),
        pytest.param("x" * 73, "the password is 73 bytes long; 72 are the most", id="T13 long"),
        pytest.param("ä" * 37, "the password is 74 bytes long", id="T13 long in bytes"),
        pytest.param("two\nlines of it", "the password holds a control character", id="two lines"),
        pytest.param("ChangeMe\n", "the password is one that everybody tries first", id="T2 sample"),
        pytest.param("newcomer", "the password is one that everybody tries first", id="T2 the name"),
    ],
)
def test_passwords_that_are_not_taken(folder: Path, password: str, message: str) -> None:
    """Each says why, and leaves no file behind."""
    _is_one_line(_user("add", "newcomer", password=password), message)
    assert os.listdir() == []


def test_the_longest_password_is_taken() -> None:
    """T13: 72 bytes, no more."""
    check_password("x" * 72, user="alice")
    check_password("ä" * 36, user="alice")


def test_what_cannot_be_done_says_what_to_do() -> None:
    """And changes nothing."""
    assert _user("add", "alice", password="correct horse").exit_code == 0
    before = Path("accounts").read_bytes()
    _is_one_line(
        _user("add", "alice", password="battery staple"),
        "alice has an account in accounts already; `moorage user passwd` changes its password",
    )
    for verb in ("passwd", "disable"):
        _is_one_line(
            _user(verb, "bob", **({"password": "battery staple"} if verb == "passwd" else {})),
            "there is no account bob in accounts; `moorage user list` shows those there are",
        )
    assert Path("accounts").read_bytes() == before
    _is_one_line(CliRunner().invoke(user, ["list"]), "which accounts? name the file by --htpasswd FILE")
    _is_one_line(CliRunner().invoke(user, ["list", "--htpasswd", "nowhere"]), "cannot read nowhere: No such file")
    _is_one_line(
        _user("add", "oidc", password="x"), "Error: Invalid value for 'NAME': no account can be called oidc", 2
    )
    _is_one_line(
        _user("add", "carol"), "Error: there is no terminal to ask for the password on: use --password-stdin", 2
    )


def test_other_lines_stay_as_they_are(folder: Path) -> None:
    """Comments, line ends, and lines that servers refuse: a file is mended account by account."""
    content = f"# people\r\ncarol:{_HASH}\r\n\nmallory:plain\nalice:$apr1$x$y\nalicia:{_HASH}".encode()
    (folder / "accounts").write_bytes(content)
    result = _user("passwd", "alice", password="correct horse")
    assert result.exit_code == 0
    assert "warning: no server takes the file yet: accounts, line 4: the password of mallory" in result.stderr
    kept = re.sub(rb"(?m)^alice:.*\n", b"alice:\n", (folder / "accounts").read_bytes())
    assert kept == content.replace(b"alice:$apr1$x$y", b"alice:") + b"\n"
    assert "warning" not in _user("passwd", "mallory", password="correct horse").stderr


def test_mode_and_links_stay(folder: Path) -> None:
    """The server must be able to read it afterwards as it was before."""
    (folder / "real").write_text(f"alice:{_HASH}\n")
    (folder / "real").chmod(0o640)
    (folder / "accounts").symlink_to("real")
    assert _user("disable", "alice").exit_code == 0
    assert (folder / "accounts").is_symlink()
    assert stat.S_IMODE((folder / "real").stat().st_mode) == 0o640
    assert (folder / "real").read_text() == f"alice:!{_HASH}\n"


def test_writers_take_turns(folder: Path) -> None:
    """Twenty at once: nobody's account is lost."""
    file = str(folder / "accounts")
    threads = [
        threading.Thread(target=change_account, args=(file, f"user{number}", lambda _: _HASH)) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Htpasswd.load(file).accounts) == {f"user{number}" for number in range(20)}


def test_accounts_by_the_auth_file(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the server's own settings name is the one that is meant."""
    assert CliRunner().invoke(user, ["list", "--auth", str(rules)]).stdout.splitlines()[0] == "alice  enabled"
    monkeypatch.setenv("MOORAGE_AUTH", str(rules))
    assert CliRunner().invoke(user, ["disable", "alice"]).exit_code == 0
    assert Htpasswd.load("accounts").accounts["alice"].is_disabled


def test_the_life_of_a_robot(rules: Path) -> None:
    """The secret alone on stdout, once; everything else on stderr."""
    made = _token("create", "ci", "--expires", "30d")
    assert re.fullmatch(rf"{SECRET_PATTERN}\n", made.stdout)
    assert made.stderr.startswith("robot:ci is made, and ends ")
    assert "-u robot+ci --password-stdin" in made.stderr
    listed = _token("list")
    assert re.fullmatch(r"robot:ci  enabled  \S+Z  \S+Z\n", listed.stdout)
    assert json.loads(_token("list", "--json").stdout)["name"] == "robot:ci"
    for result in (listed, _token("list", "--json")):
        assert made.stdout.strip().removeprefix("mrg_") not in result.output
    _is_one_line(_token("create", "ci"), "there is a robot ci already, and nobody can show its secret again; for a new")
    assert _token("revoke", "ci").stderr == "robot:ci is revoked\n"
    _is_one_line(_token("revoke", "ci"), "there is no robot ci in root; `moorage token list` shows those there are")
    assert _token("list").output == ""


def test_a_robot_without_rules_is_pointed_out(rules: Path) -> None:
    """It would log in and find every door closed."""
    rules.write_text(_RULES.replace("robot:*", "robot:cd"))
    for name, is_warned in (("ci", True), ("cd", False)):
        made = CliRunner().invoke(token, ["create", name, "--root", "root", "--auth", str(rules)])
        assert (f"warning: no rule in {rules} names robot:{name}, so" in made.stderr) is is_warned


@pytest.mark.parametrize("life", ["0d", "59", "30", "367d", "1y", "-1d", "", "1.5h"])
def test_every_robot_ends_within_a_year(rules: Path, life: str) -> None:
    """A life that is none is wrong usage."""
    _is_one_line(
        _token("create", "ci", "--expires", life),
        "Error: Invalid value for '--expires': expected 1m to 366d, such as 12h or 30d, got",
        2,
    )


def test_roots_that_are_none(folder: Path) -> None:
    """A typing error makes no new registry, and another program's directory stays as it is."""
    _is_one_line(_token("create", "ci"), "there is no directory root: name the server's root by --root")
    (folder / "root").mkdir()
    (folder / "root" / "photo").write_text("x")
    result = _token("create", "ci")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir("root") == ["photo"]


@pytest.mark.root
def test_a_root_of_somebody_else_is_not_written_to(rules: Path, folder: Path) -> None:
    """Root's files in the server's directory would be files that the server cannot change."""
    os.chown(folder / "root", 65534, -1)
    for verb in ("create", "revoke"):
        result = _token(verb, "ci")
        assert result.exit_code == 1
        assert re.match(r"moorage: root belongs to the user \w+: run this as that user", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "status", "lines"),
    [
        pytest.param(
            ("alice", "apps/web", "--action", "push"),
            0,
            [
                "create  allowed  rule 'developers' allows create",
                "developers  group:dev  pull, create, update  apps/**",
                "public      everybody  pull                  public/**",
            ],
            id="allowed",
        ),
        pytest.param(
            ("alice", "localhost:5000/apps/web:v1", "--action", "update"),
            1,
            ["update  DENIED  the tag v1 of apps/web is immutable"],
            id="immutable tag",
        ),
        pytest.param(
            ("alice", "reg.acme.test/apps/web", "--action", "delete"),
            1,
            ["delete  DENIED  in apps/web alice has pull (rule 'developers'), create", "but not delete"],
            id="another action",
        ),
        pytest.param(
            ("alice", "other/x", "--action", "pull"),
            1,
            ["no rule that names alice or everybody covers other/x: 'developers', 'public'"],
            id="another repository",
        ),
        pytest.param(
            ("bob", "public/x", "--action", "pull"), 1, ["pull  DENIED  the account bob is disabled in "], id="disabled"
        ),
        pytest.param(
            ("gone", "apps/web", "--action", "pull"), 1, ["pull  DENIED  there is no account gone in "], id="no account"
        ),
        pytest.param(
            ("robot:ci", "base/os", "--action", "pull"),
            1,
            ["pull  DENIED  there is no robot:ci, or it has expired"],
            id="no robot",
        ),
        pytest.param(
            ("publisher:web", "apps/web", "--action", "pull"),
            0,
            ["pull  allowed  rule 'publisher:web' allows pull"],
            id="a publisher",
        ),
        pytest.param(
            ("anonymous", "public/x", "--action", "pull"),
            0,
            ["anonymous in public/x:", "pull  allowed  rule 'public' allows pull"],
            id="anonymous",
        ),
        pytest.param(
            ("anonymous", "apps/web"),
            0,
            ["pull    DENIED  no rule that is for everybody covers apps/web: 'public'"],
            id="no action asked about",
        ),
        pytest.param(
            ("alice", "apps/web", "--action", "catalog"),
            1,
            ["catalog  DENIED  no rule that names alice or everybody allows catalog"],
            id="catalog",
        ),
    ],
)
def test_a_decision_is_explained(rules: Path, arguments: tuple[str, ...], status: int, lines: list[str]) -> None:
    """Which rule, or why none; the status follows the actions that were asked about."""
    result = _test(*arguments)
    assert result.exit_code == status
    assert result.stderr == ""
    for line in lines:
        assert line in result.stdout


def test_a_robot_that_is_there(rules: Path) -> None:
    """By either of its names."""
    assert _token("create", "ci").exit_code == 0
    for name in ("robot:ci", "robot+ci"):
        result = _test(name, "base/os", "--action", "pull")
        assert result.exit_code == 0
        assert "rule 'robots' allows pull" in result.stdout


def test_decisions_as_json(rules: Path) -> None:
    """One document per action."""
    (line,) = _test("alice", "apps/web", "--action", "delete", "--json").stdout.splitlines()
    answer = json.loads(line)
    assert answer.pop("why").startswith("in apps/web alice has pull")
    assert answer == {"user": "alice", "target": "apps/web", "action": "delete", "allowed": False, "rule": "default"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alice", "Apps"), "Error: 'Apps': invalid repository name"),
        (("alice", "apps:a b"), "Error: 'apps:a b': "),
        (("al ice", "apps"), "Error: 'al ice': 'al ice' is no name for an account"),
        (
            ("publisher:wev", "apps"),
            "Error: 'publisher:wev': there is no publisher 'wev'; the nearest is publish",
        ),
        (("alice", "apps", "--action", "look"), "Error: Invalid value for '--action': 'look' is not one of"),
    ],
)
def test_questions_that_are_none(rules: Path, arguments: tuple[str, ...], message: str) -> None:
    """Wrong usage, with what is right."""
    _is_one_line(_test(*arguments), message, 2)


def test_without_rules_there_is_nothing_to_test() -> None:
    """Rather than an answer that would be about another server."""
    _is_one_line(
        CliRunner().invoke(auth, ["test", "alice", "apps"]), "no rules: name them by --htpasswd FILE or --auth"
    )


def test_a_broken_auth_file_is_said_in_one_line(rules: Path) -> None:
    """With file, line and place."""
    rules.write_text("rules: [{name: r}]")
    _is_one_line(_test("alice", "apps"), "auth.yaml, line 1, rules[0]: 'who' is missing")
