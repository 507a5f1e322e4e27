"""Where credentials may be on this machine, in the order in which they are looked up.

1. ``MOORAGE_USERNAME`` and ``MOORAGE_PASSWORD``, for the one registry that ``MOORAGE_REGISTRY`` names
2. ``DOCKER_AUTH_CONFIG``: the content of a docker ``config.json``, as CI systems set it
3. ``REGISTRY_AUTH_FILE``: a file that takes the place of podman's own
4. docker's ``config.json``, in ``DOCKER_CONFIG`` or ``~/.docker``
5. podman's ``auth.json`` of this session: in ``XDG_RUNTIME_DIR/containers`` or ``/run/containers/UID``
6. podman's ``auth.json`` that stays: in ``XDG_CONFIG_HOME/containers`` or ``~/.config/containers``

Law: the variables go to the registry that they name and to no other. Without ``MOORAGE_REGISTRY`` nothing says whose
they are, and a copy between two registries would show one's password to the other; so they are then refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from moorage.puller.credentials.files import AuthFile, AuthText
from moorage.puller.credentials.model import Credentials, Finding, Source, Target
from moorage.puller.credentials.names import StoredName
from moorage.puller.errors import CredentialsUnusable
from moorage.registry.oci.values import dataclass

__all__ = ["Variables", "all_places", "file_for_login", "files_of"]

_NAMES = ("MOORAGE_REGISTRY", "MOORAGE_USERNAME", "MOORAGE_PASSWORD")


@dataclass(frozen=True, slots=True)
class Variables:
    """Credentials in the environment, for one registry."""

    registry: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"<Variables for {self.registry!r}: {self.username!r}, ***>"

    @property
    def name(self) -> str:
        """See ``Source``."""
        return "variables MOORAGE_USERNAME and MOORAGE_PASSWORD"

    def look(self, target: Target) -> list[Finding]:
        """See ``Source``."""
        if not self.username and not self.password:
            return [Finding(self.name, "are not set")]
        missing = [name for name, value in zip(_NAMES, self._values, strict=True) if not value]
        if missing:
            raise CredentialsUnusable(
                f"the variables {', '.join(_NAMES)} go together (MOORAGE_REGISTRY=host[:port] says which registry"
                f" may see the others), but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
            )
        wanted = StoredName.parse(self.registry)
        if wanted is None or wanted.namespace:
            raise CredentialsUnusable(f"the variable MOORAGE_REGISTRY={self.registry!r} is not host or host:port")
        if not wanted.matches(target):
            return [Finding(self.name, f"are for MOORAGE_REGISTRY={self.registry}, not for {target.registry}")]
        return [Finding(self.name, f"MOORAGE_REGISTRY={self.registry}", Credentials(self.username, self.password))]

    @property
    def _values(self) -> tuple[str, str, str]:
        return self.registry, self.username, self.password


def all_places(environment: Mapping[str, str]) -> tuple[Source, ...]:
    """Every place, the first to be asked first."""
    variables = Variables(*(environment.get(name, "") for name in _NAMES))
    text = AuthText("DOCKER_AUTH_CONFIG", environment.get("DOCKER_AUTH_CONFIG"))
    return (variables, text, *files_of(environment))


def files_of(environment: Mapping[str, str]) -> tuple[AuthFile, ...]:
    """The files among the places."""
    chosen = environment.get("REGISTRY_AUTH_FILE", "")
    instead = "REGISTRY_AUTH_FILE takes its place" if chosen else ""
    own = [AuthFile(path, instead) for path in _podman_paths(environment) if path != chosen]
    return (*([AuthFile(chosen)] if chosen else []), AuthFile(_docker_path(environment)), *own)


def file_for_login(environment: Mapping[str, str]) -> str:
    """The file that ``login`` writes: the one in use, docker's where there is none."""
    chosen, docker = environment.get("REGISTRY_AUTH_FILE"), _docker_path(environment)
    if chosen:
        return chosen
    if environment.get("DOCKER_CONFIG") or os.path.exists(docker):
        return docker
    return next((path for path in _podman_paths(environment) if os.path.exists(path)), docker)


def _docker_path(environment: Mapping[str, str]) -> str:
    folder = environment.get("DOCKER_CONFIG") or os.path.join(_home(environment), ".docker")
    return os.path.join(folder, "config.json")


def _podman_paths(environment: Mapping[str, str]) -> list[str]:
    runtime = environment.get("XDG_RUNTIME_DIR")
    session = os.path.join(runtime, "containers") if runtime else f"/run/containers/{os.getuid()}"
    lasting = os.path.join(
        environment.get("XDG_CONFIG_HOME") or os.path.join(_home(environment), ".config"), "containers"
    )
    return [os.path.join(folder, "auth.json") for folder in (session, lasting)]


def _home(environment: Mapping[str, str]) -> str:
    return environment.get("HOME") or os.path.expanduser("~")
