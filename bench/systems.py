"""What is measured side by side: one row for each system, with how it is started and how it is asked."""

import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import peers
from processes import Running, running

HERE = Path(__file__).resolve().parent
BURST, STEADY, LONE, HELD = "bench-n64-d0", "bench-n64-d20", "bench-n2-d5", "bench-n2-d4000"
MODELS = (BURST, STEADY, LONE, HELD)
LITELLM_KEY = f"sk-{secrets.token_hex(32)}"
"""It does not start without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a system is started with."""

    provider: Running
    folder: Path
    core: int

    @property
    def openai_url(self) -> str:
        """The provider's address as OpenAI's SDK would be given it."""
        return f"http://{self.provider.host}:{self.provider.port}/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A row. `start` is entered with what is around and gives the running process."""

    name: str
    start: Callable[[Around], AbstractContextManager[Running]]
    speaks: Literal["grpc", "http"] = "http"
    path: str = ""
    headers: Callable[[Around], dict[str, str]] = lambda around: {}
    model: str = "{model}"
    """What it calls a model of the provider."""
    scenarios: tuple[str, ...] = ("lone", "held", "burst", "steady")
    peer: peers.Peer | None = None
    """What has to be installed for it."""
    versions: tuple[str, ...] = field(default=())
    """Distributions in our own environment that say which version this is."""


def headrace_config(around: Around) -> str:
    """The configuration of a service in front of the provider."""
    root = f"http://{around.provider.host}:{around.provider.port}"
    return f"""
[providers.bench]
dialect = "openai"
api_url = "{root}/v1"
api_key = "none"
default_model = "{BURST}"
circuit_failures = 1000000

[providers.bench-claude]
dialect = "claude"
api_url = "{root}"
api_key = "none"
default_model = "{BURST}"
circuit_failures = 1000000
"""


def start_headrace(around: Around, *more: str) -> AbstractContextManager[Running]:
    """The service as people start it; everything else is as by default, the journal and the log lines included."""
    config = around.folder / "headrace.toml"
    config.write_text(headrace_config(around))
    database = f"sqlite:///{around.folder}/headrace.db"
    command = [sys.executable, "-m", "headrace_server", "serve", "--listen", "127.0.0.1:0", "--database", database, "--config", str(config)]
    return running([*command, *more], core=around.core, folder=around.folder)


def _start_bare(around: Around) -> AbstractContextManager[Running]:
    return running([sys.executable, str(HERE / "bare.py")], core=around.core, folder=around.folder)


def _start_tensorzero(around: Around) -> AbstractContextManager[Running]:
    config = "[gateway]\nobservability.enabled = false\nauth.enabled = false\n"
    for model in MODELS:
        config += f'[models."{model}"]\nrouting = ["bench"]\n[models."{model}".providers.bench]\ntype = "openai"\nmodel_name = "{model}"\n'
        config += f'api_base = "{around.openai_url}/"\napi_key_location = "none"\n'
    (around.folder / "tensorzero.toml").write_text(config)
    program = (
        "import threading, tensorzero\n"
        "gateway = tensorzero._start_http_gateway(config_file='tensorzero.toml', clickhouse_url=None, postgres_url=None,"
        " valkey_url=None, async_setup=False)\n"
        "print('listening on', gateway.base_url.split('/')[2], flush=True)\n"
        "threading.Event().wait()\n"
    )
    command = [str(peers.TENSORZERO.folder / "bin" / "python"), "-c", program]
    return running(command, core=around.core, folder=around.folder, environment={"TOKIO_WORKER_THREADS": "1"})


def _start_litellm(around: Around) -> AbstractContextManager[Running]:
    rows = ""
    for model in MODELS:
        rows += f"  - model_name: {model}\n    litellm_params:\n"
        rows += f"      model: openai/{model}\n      api_base: {around.openai_url}\n      api_key: none\n"
    (around.folder / "litellm.yaml").write_text(f"model_list:\n{rows}")
    port = _free_port()
    command = [str(peers.LITELLM.folder / "bin" / "litellm"), "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_MASTER_KEY": LITELLM_KEY,
    }
    return running(
        [*command, "--num_workers", "1", "--telemetry", "False"],
        core=around.core,
        folder=around.folder,
        environment=quiet,
        health=(port, "/health/liveliness"),
        patience=120,
    )


def _start_portkey(around: Around) -> AbstractContextManager[Running]:
    port = _free_port()
    script = peers.PORTKEY.folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(script), "--headless", f"--port={port}"]
    return running(command, core=around.core, folder=around.folder, environment={"NODE_ENV": "production"}, health=(port, "/"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


PROVIDER = System(
    name="provider read directly",
    start=lambda around: nullcontext(around.provider),
    path="/v1/chat/completions",
    scenarios=("lone", "burst", "steady", "steady, 100 streams"),
)
HEADRACE = System(
    name="Headrace",
    start=start_headrace,
    speaks="grpc",
    scenarios=("lone", "held", "burst", "burst, claude", "steady", "steady, 100 streams", "burst, 4 streams", "steady, 4 streams"),
    versions=("headrace", "grpcio", "aiohttp", "protobuf", "uvloop"),
)
BARE = System(name="bare grpc.aio server", start=_start_bare, speaks="grpc", versions=("grpcio", "uvloop"))
TENSORZERO = System(
    name="TensorZero",
    start=_start_tensorzero,
    path="/openai/v1/chat/completions",
    model="tensorzero::model_name::{model}",
    peer=peers.TENSORZERO,
)
LITELLM = System(
    name="LiteLLM",
    start=_start_litellm,
    path="/v1/chat/completions",
    headers=lambda around: {"Authorization": f"Bearer {LITELLM_KEY}"},
    peer=peers.LITELLM,
)
PORTKEY = System(
    name="Portkey",
    start=_start_portkey,
    path="/v1/chat/completions",
    headers=lambda around: {"x-portkey-provider": "openai", "x-portkey-custom-host": around.openai_url, "Authorization": "Bearer none"},
    peer=peers.PORTKEY,
)
SYSTEMS = (PROVIDER, HEADRACE, BARE, TENSORZERO, PORTKEY, LITELLM)
ALWAYS = (PROVIDER, HEADRACE, BARE, TENSORZERO)
