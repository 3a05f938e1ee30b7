"""The settings: read once, at start, here and nowhere else.

A flag beats an environment variable `HEADRACE_<NAME>`, which beats the configuration file (TOML), which beats the default. Durations are
numbers of seconds, sizes are numbers of bytes. A setting that is unknown or wrong is an error that names it and where it stands.
"""

import difflib
import os
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from headrace_server.domain.base import ModelName, ProviderName
from headrace_server.domain.fallbacks import Named, wrong_fallbacks
from headrace_server.domain.provider import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    DEFAULT_TIMEOUT_MS,
    Dialect,
    Limit,
    Provider,
    ProviderSettings,
    ProviderSource,
)

PREFIX = "HEADRACE_"

NOT_SETTINGS = frozenset(
    {
        "HEADRACE_CONFIG",  # path of the configuration file
        "HEADRACE_SERVER",  # address that the commands of the client side talk to
        "HEADRACE_KEYRING",  # keys that encrypt the stored API keys; read by the key ring
        "HEADRACE_WIRE",  # tests: folder of recorded exchanges
        "HEADRACE_GRPCURL",  # tests: path of grpcurl
        "HEADRACE_WRITE_FAULTS",  # tests: write docs/faults.md instead of comparing with it
    }
)
"""Variables with the prefix that are no settings of the service."""

ENVIRONMENT_KEYS: Mapping[str, tuple[str, ...]] = {
    "claude": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
}
"""Where the keys of the built-in providers come from; the first that is set wins."""

_FILE_PROVIDER_IDS = uuid.UUID("5d0c7d7e-5a1c-4d0e-9a56-6e3f1c7a9b20")


class ConfigurationError(Exception):
    """What is wrong with the settings, one line each; the text is for the person who starts the service."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def data_directory() -> Path:
    """Where this system keeps a user's data."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "headrace"


def _default_database() -> str:
    return f"sqlite:///{quote(str(data_directory() / 'headrace.db'))}"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets. Raises ValueError."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/]+):(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:0")
    return match[1].strip("[]"), int(match[2])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _address(value: str) -> str:
    split_address(value)
    return value


def _database(value: str) -> str:
    if value.startswith(("postgresql:", "postgres:")):
        raise ValueError("PostgreSQL is not supported yet; use sqlite:///PATH")
    if value != "memory:" and (not value.startswith("sqlite:///") or value == "sqlite:///"):
        raise ValueError("must be sqlite:///PATH, such as sqlite:///headrace.db or sqlite:////srv/headrace.db")
    return value


def _http_url(value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname:
        raise ValueError("must be a URL such as http://127.0.0.1:8080/v1")
    return value


Address = Annotated[str, AfterValidator(_address)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]
Age = Annotated[float, Field(ge=60, le=100 * 366 * 24 * 3600, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0, le=2**31 - 1)]


class FileProvider(ProviderSettings):
    """A table `[providers.NAME]` of the configuration file: the columns of provider_configs by their names, its key, further settings."""

    dialect: Dialect
    """How it is spoken to: claude, gemini or openai."""
    default_model: ModelName
    """Model of requests that name none."""
    api_url: Annotated[str, Field(max_length=2_048), AfterValidator(_http_url)] | None = None
    """What the provider's own SDK calls its base URL. Default: the public address of the dialect."""
    api_key: SecretStr | None = None
    """Its key. Better kept out of the file: see `api_key_env`."""
    api_key_env: Annotated[str, Field(min_length=1)] | None = None
    """Name of the environment variable that holds its key."""
    enabled: bool = True
    """Whether routing uses it."""
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = DEFAULT_PRIORITY
    """Lower numbers are asked first."""
    max_retries: Annotated[int, Field(ge=1, le=100)] = DEFAULT_MAX_RETRIES
    """Most calls to it for one request."""
    timeout_ms: Annotated[int, Field(ge=1, le=86_400_000)] = DEFAULT_TIMEOUT_MS
    """Bounds connecting and, on a stream, the wait for the first token and silence between bytes; milliseconds."""
    rate_limit_rpm: Limit | None = None
    """Most requests a minute."""
    rate_limit_tpm: Limit | None = None
    """Most tokens a minute."""
    rate_limit_rpd: Limit | None = None
    """Most requests a day."""
    fallback_providers: Annotated[tuple[ProviderName, ...], Field(max_length=64)] = ()
    """Who stands in for it, in order."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("api_key and api_key_env exclude each other")
        return self

    def key(self, environ: Mapping[str, str]) -> SecretStr | None:
        """Its key, from here or from the environment. Raises KeyError where the variable is not set."""
        if self.api_key_env is None:
            return self.api_key
        return SecretStr(environ[self.api_key_env])


class Settings(BaseSettings):
    """The settings of the service. A plain value: `load` finds out what the person who starts the service wants."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    listen: Address = "127.0.0.1:50051"
    """Address of the gRPC service, `HOST:PORT`; port 0 takes a free one."""
    insecure: bool = False
    """Allow a listener that other machines can reach although it has neither TLS nor tokens."""
    database: Annotated[str, AfterValidator(_database)] = Field(default_factory=_default_database)
    """`sqlite:///PATH`, or `memory:`, for tests and demos: nothing survives the process. Default: `headrace/headrace.db` in the user's data
    directory."""
    durability: Literal["strict", "normal", "relaxed"] = "normal"
    """What a commit survives: strict: power loss; normal: the death of the process; relaxed: an end is told before it is committed."""
    reflection: bool = True
    """Whether the service describes itself to grpcurl and others."""
    max_in_flight_per_stream: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Most generations that run at once on one StreamGenerate."""
    max_concurrent_generations: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    """Most generations that run at once in one process; more are refused."""
    max_streams_per_connection: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Most RPCs that are open at once on one connection; a caller's library keeps back what is over that, or opens another connection."""
    max_unread_bytes: Bytes = 1024 * 1024
    """Chunks that wait for a caller who does not read, of all generations of one stream, before their providers are not read either."""
    slow_client_timeout: Seconds = 60
    """A stream whose caller has taken nothing for so long, though there was something to take, is ended."""
    max_receive_message_bytes: Bytes = 4 * 1024 * 1024
    """Largest message that a caller may send."""
    keepalive_time: Seconds = 60
    """The service pings a silent connection after so long."""
    keepalive_timeout: Seconds = 20
    """A connection whose ping was not answered for so long is closed."""
    min_ping_interval: Seconds = 30
    """Callers that ping more often than this are turned away."""
    max_connection_age: Seconds | None = None
    """A connection older than this is ended once its RPCs are done, so that new replicas get load. Default: never."""
    drain_timeout: Annotated[float, Field(ge=0, le=24 * 3600, allow_inf_nan=False)] = 30
    """How long running streams may go on after SIGTERM."""
    default_total_timeout: Seconds = 600
    """Bounds a generation whose caller set no deadline."""
    progress_timeout: Seconds = 120
    """Bounds how long a provider may send bytes without content."""
    retry_budget: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of a provider's calls within a minute that may be retries; ten a minute are always allowed."""
    replay_window: Annotated[float, Field(ge=0, le=24 * 3600, allow_inf_nan=False)] = 60
    """How long the chunks of an ended generation stay at hand for resume."""
    replay_memory_bytes: Bytes = 64 * 1024 * 1024
    """Most memory that ended generations take for that; over it, those that ended first leave before their time."""
    retention_requests: Age | None = None
    """Requests are deleted so long after their end, with all that belongs to them; their ids count as new then. Default: never."""
    retention_metrics: Age | None = None
    """The metrics of a request are deleted so long after its end, while the request stays. Default: with the request."""
    retention_chunks: Age = 24 * 3600
    """The kept chunks of a generation are deleted so long after its end; its answer stays with the request."""
    memory_per_generation_bytes: Bytes = 1024 * 1024
    """Chunks of one generation that stay in memory; of a larger answer the first ones are read from the database."""
    max_response_bytes: Bytes = 16 * 1024 * 1024
    """Largest answer that is read from a provider."""
    max_event_bytes: Bytes = 1024 * 1024
    """Largest single event of a provider's stream."""
    max_response_pieces: Annotated[int, Field(gt=0, le=2**31 - 1)] = 250_000
    """Most pieces that one answer may come in, for each takes many times its bytes in memory; one that begins a new part counts as 25
    more."""
    transport: Literal["httptools", "aiohttp", "httpx"] = "httptools"
    """What speaks HTTP to the providers."""
    uvloop: Literal["auto", "on", "off"] = "auto"
    """Whether uvloop runs the event loop; auto: where it is installed."""
    scheduling: Literal["batch", "normal"] = "batch"
    """How Linux schedules the service: batch: its threads interrupt nobody, which spares a fifth of the processor under load; normal: it
    answers sooner where other busy processes share its cores."""
    otlp_endpoint: Annotated[str, AfterValidator(_http_url)] | None = None
    """Where spans and metrics go by OTLP over gRPC, such as `http://127.0.0.1:4317`. Default: nowhere."""
    prometheus_listen: Address | None = None
    """Address that serves metrics to Prometheus. Default: none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, to stderr."""
    log_json: bool | None = None
    """Whether log lines are JSON. Default: unless stderr is a terminal."""
    providers: dict[ProviderName, FileProvider] = Field(default_factory=dict)
    """The tables `[providers.NAME]`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what it is given: `load` brings the sources together, so that it can name the one that is wrong."""
        return (init_settings,)

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if not self.insecure:
            for name in ("listen", "prometheus_listen"):
                address = getattr(self, name)
                if address is not None and not is_loopback(split_address(address)[0]):
                    raise ValueError(f"{name}: other machines can reach {address}: set insecure (--insecure) if that is meant")
        return self

    def file_providers(self, default_urls: Mapping[Dialect, str], *, now: int, environ: Mapping[str, str] | None = None) -> list[Provider]:
        """The providers of the file, ready for use. `now` in milliseconds since the epoch. Raises ConfigurationError."""
        found, wrong = [], []
        for name, table in self.providers.items():
            default_url = default_urls[table.dialect]
            try:
                api_key = table.key(os.environ if environ is None else environ)
            except KeyError:
                if table.enabled:
                    wrong.append(f"providers.{name}.api_key_env: the environment variable {table.api_key_env} is not set")
                    continue
                api_key = None
            found.append(
                Provider(
                    **table.model_dump(exclude={"api_key", "api_key_env", "api_url", *ProviderSettings.model_fields}),
                    id=str(uuid.uuid5(_FILE_PROVIDER_IDS, name)),
                    provider=name,
                    api_url=table.api_url or default_url,
                    config=ProviderSettings(**table.model_dump(include=set(ProviderSettings.model_fields))),
                    created_at=now,
                    updated_at=now,
                    api_key=api_key,
                    source=ProviderSource.FILE,
                )
            )
        if wrong:
            raise ConfigurationError(wrong)
        return found

    def check_fallbacks(self, named: Named) -> None:
        """Refuse fallbacks in the file that could not stand in; `named` tells of every provider whom it names. Raises ConfigurationError.

        One that is disabled is no error: in an incident it must be possible to disable a provider here without touching all others.
        """
        wrong = [f"providers.{name}.fallback_providers[{i}]: {text}" for name in self.providers for i, text in wrong_fallbacks(name, named)]
        if wrong:
            raise ConfigurationError(wrong)


def environment_keys(environ: Mapping[str, str] | None = None) -> dict[str, SecretStr]:
    """The keys that the environment has for the built-in providers, by the provider's name."""
    environ = os.environ if environ is None else environ
    found = {provider: next((environ[name] for name in names if environ.get(name)), "") for provider, names in ENVIRONMENT_KEYS.items()}
    return {provider: SecretStr(key) for provider, key in found.items() if key}


def load(flags: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Settings:
    """The settings by flags (a value of None is no flag), environment and file. Raises ConfigurationError."""
    if config is None and (path := os.environ.get("HEADRACE_CONFIG")):
        config = Path(path)
    from_file = _read(config) if config is not None else {}
    from_environment = _environment()
    from_flags = {name: value for name, value in (flags or {}).items() if value is not None}

    def place(name: str) -> str:
        if name in from_flags:
            return "flag --" + name.replace("_", "-")
        return PREFIX + name.upper() if name in from_environment else str(config)

    try:
        settings = Settings(**{**from_file, **from_environment, **from_flags})
    except ValidationError as error:
        raise ConfigurationError(list(_explain(error, place))) from None
    # Who is not in the file may be in the store, which is not open yet.
    in_file = {name: table.fallback_providers for name, table in settings.providers.items()}
    elsewhere: dict[str, tuple[str, ...]] = {name: () for names in in_file.values() for name in names}
    settings.check_fallbacks(elsewhere | in_file)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: is not TOML: {error}"]) from None


def _environment() -> dict[str, Any]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known | NOT_SETTINGS)
    if unknown:
        raise ConfigurationError([f"{name}: there is no such setting{_nearest(name, known)}" for name in unknown])
    try:
        return EnvSettingsSource(Settings, case_sensitive=False)()
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        raise ConfigurationError([f"{PREFIX}{named[1].upper() if named else ''}: must be JSON"]) from None


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _explain(error: ValidationError, place: Any) -> Iterator[str]:
    """One line for each wrong setting: its path, where it was set, and what is wrong. Never its value, which may be a key."""
    for line in error.errors(include_url=False, include_input=False, include_context=False):
        *parents, last = (str(step) for step in line["loc"] if step != "[key]") if line["loc"] else ("",)
        path = ".".join((*parents, last))
        text = line["msg"].removeprefix("Value error, ")
        if line["type"] == "extra_forbidden":
            text = "there is no such setting" + _nearest(last, set((FileProvider if parents else Settings).model_fields))
        elif line["type"] == "missing":
            text = "is missing"
        yield f"{path} ({place(str(line['loc'][0]))}): {text}" if path else text
