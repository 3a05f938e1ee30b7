"""Other gateways to compare with, each in an environment of its own in the user's cache folder, outside the project."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "bench"
INSTALL_TIMEOUT = 900.0


class Missing(Exception):
    """Why a peer cannot be had on this machine."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway and its version. `install` puts it into the folder that it is given."""

    name: str
    version: str
    install: Callable[["Peer", Path], None]

    @property
    def folder(self) -> Path:
        """Where it is installed. A version has a folder of its own."""
        return CACHE / f"{self.name}-{self.version}"

    def ensure(self) -> None:
        """Install it unless it is there. Raises Missing."""
        ready = self.folder / ".ready"
        if ready.exists():
            return
        print(f"installing {self.name} {self.version} into {self.folder}", flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self.install(self, self.folder)
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", None) or str(error)
            raise Missing(output.strip().splitlines()[-1]) from None
        ready.touch()


def _run(*command: str, folder: Path | None = None) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT)


def _from_pypi(requirement: str) -> Callable[[Peer, Path], None]:
    def install(peer: Peer, folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"{requirement}=={peer.version}")

    return install


def _from_npm(package: str, overrides: dict[str, str]) -> Callable[[Peer, Path], None]:
    def install(peer: Peer, folder: Path) -> None:
        wanted = {"private": True, "dependencies": {package: peer.version}, "overrides": overrides}
        (folder / "package.json").write_text(json.dumps(wanted))
        _run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", folder=folder)

    return install


TENSORZERO = Peer("tensorzero", "2026.6.0", _from_pypi("tensorzero"))
LITELLM = Peer("litellm", "1.106.2", _from_pypi("litellm[proxy]"))
# Newer versions of its HTTP server answer 500 to every stream of this gateway.
PORTKEY = Peer("portkey", "1.15.2", _from_npm("@portkey-ai/gateway", {"@hono/node-server": "1.8.2"}))
