import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from headrace_server.config import ConfigurationError, FileProvider, Settings, environment_keys, is_loopback, load, split_address
from headrace_server.domain.provider import Dialect, ProviderSource

URLS = {
    Dialect.CLAUDE: "https://api.anthropic.com",
    Dialect.GEMINI: "https://generativelanguage.googleapis.com",
    Dialect.OPENAI: "https://api.openai.com/v1",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    path = folder / "headrace.toml"
    path.write_text(text)
    return path


def complaints(flags: dict[str, Any] | None = None, config: Path | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(flags, config=config)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.lines


def test_defaults_hold_when_nothing_is_set() -> None:
    settings = load()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.database.startswith("sqlite:///")
    assert settings.database.endswith("/headrace/headrace.db")
    assert (settings.durability, settings.reflection, settings.log_json) == ("normal", True, None)


def test_database_is_below_the_data_directory_when_the_system_names_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "a b"))
    assert load().database == f"sqlite:///{tmp_path}/a%20b/headrace/headrace.db"


def test_flag_beats_environment_which_beats_file_which_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = write(tmp_path, 'listen = "127.0.0.1:1"\ndurability = "strict"\ndrain_timeout = 5\n')
    monkeypatch.setenv("HEADRACE_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("HEADRACE_DURABILITY", "relaxed")
    settings = load({"listen": "127.0.0.1:3", "durability": None}, config=config)
    assert (settings.listen, settings.durability, settings.drain_timeout, settings.replay_window) == ("127.0.0.1:3", "relaxed", 5, 60)


def test_file_is_found_when_the_environment_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", str(write(tmp_path, "reflection = false")))
    assert load().reflection is False


def test_values_of_the_environment_are_read_as_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_INSECURE", "true")
    monkeypatch.setenv("HEADRACE_DRAIN_TIMEOUT", "2.5")
    monkeypatch.setenv("HEADRACE_PROVIDERS", '{"a": {"dialect": "openai", "default_model": "m"}}')
    settings = load()
    assert (settings.insecure, settings.drain_timeout, settings.providers["a"].default_model) == (True, 2.5, "m")


def test_every_wrong_setting_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = write(tmp_path, 'replay_window = "60s"\n')
    monkeypatch.setenv("HEADRACE_DURABILITY", "perfect")
    lines = complaints({"listen": "here"}, config)
    assert [line.partition(":")[0] for line in lines] == [
        "listen (flag --listen)",
        "durability (HEADRACE_DURABILITY)",
        f"replay_window ({config})",
    ]


def test_unknown_setting_is_an_error_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = write(tmp_path, "listn = 1")
    assert complaints(config=config) == [f"listn ({config}): there is no such setting; did you mean listen?"]
    monkeypatch.setenv("HEADRACE_LISTN", "1")
    assert complaints() == ["HEADRACE_LISTN: there is no such setting; did you mean HEADRACE_LISTEN?"]


def test_variables_of_tools_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_WIRE", "HEADRACE_KEYRING", "HEADRACE_GRPCURL", "HEADRACE_SERVER"):
        monkeypatch.setenv(name, "x")
    assert load() == load()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listen = ", "is not TOML"),
        ("\ud800", "is not TOML"),
        (None, "cannot be read"),
    ],
)
def test_file_is_named_when_it_cannot_be_read(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "headrace.toml"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogatepass"))
    (line,) = complaints(config=path)
    assert line.startswith(f"{path}: {expected}")


def test_environment_names_the_setting_that_is_not_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PROVIDERS", "{sk-secret")
    assert complaints() == ["HEADRACE_PROVIDERS: must be JSON"]


@pytest.mark.parametrize("database", ["sqlite://x", "sqlite:///", "mysql://x", "headrace.db"])
def test_database_is_refused_when_it_is_no_sqlite_url(database: str) -> None:
    (line,) = complaints({"database": database})
    assert line.startswith("database (flag --database): must be sqlite:///PATH")


def test_database_may_be_in_memory() -> None:
    assert load({"database": "memory:"}).database == "memory:"


def test_database_is_refused_when_it_is_postgresql() -> None:
    assert complaints({"database": "postgresql://u:secret@h/d"}) == [
        "database (flag --database): PostgreSQL is not supported yet; use sqlite:///PATH"
    ]


@pytest.mark.parametrize("name", ["listen", "prometheus_listen"])
def test_listener_for_other_machines_is_refused_unless_insecure(name: str) -> None:
    (line,) = complaints({name: "0.0.0.0:1"})
    assert line == f"{name}: other machines can reach 0.0.0.0:1: set insecure (--insecure) if that is meant"
    assert getattr(load({name: "0.0.0.0:1", "insecure": True}), name) == "0.0.0.0:1"


@pytest.mark.parametrize(
    ("address", "expected"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:65535", ("::1", 65535)), ("localhost:80", ("localhost", 80))]
)
def test_address_is_split(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":80", "::1:80", "a b:80", "h:65536", "h:-1", "http://h:80"])
def test_address_is_refused_when_it_is_no_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)


def test_loopback_is_recognised() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com")] == [False] * 5


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().listen = "127.0.0.1:1"  # type: ignore[misc]


def test_settings_are_a_plain_value_when_they_are_made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LISTEN", "127.0.0.1:9")
    assert Settings().listen == "127.0.0.1:50051"


# ---------------------------------------------------------------- providers


def test_provider_of_the_file_has_the_defaults_of_its_columns(tmp_path: Path) -> None:
    config = write(tmp_path, '[providers.mine]\ndialect = "claude"\ndefault_model = "claude-x"\n')
    (provider,) = load(config=config).file_providers(URLS, now=7)
    assert (provider.provider, provider.dialect, provider.default_model) == ("mine", Dialect.CLAUDE, "claude-x")
    assert (provider.api_url, provider.enabled, provider.priority) == ("https://api.anthropic.com", True, 100)
    assert (provider.max_retries, provider.timeout_ms, provider.config.circuit_failures) == (3, 30_000, 5)
    assert (provider.source, provider.created_at, provider.api_key) == (ProviderSource.FILE, 7, None)
    assert (provider.needs_key, provider.is_ready) == (True, False)


def test_provider_of_the_file_has_all_that_its_table_says(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        """
[providers.local]
dialect = "openai"
api = "responses"
api_url = "http://127.0.0.1:8080/v1"
api_key = "sk-secret"
default_model = "llama"
enabled = false
priority = 3
max_retries = 5
timeout_ms = 100
rate_limit_rpm = 1
rate_limit_tpm = 2
rate_limit_rpd = 3
fallback_providers = ["claude"]
circuit_failures = 9
circuit_cooldown_ms = 10
zone = "Europe/Paris"
""",
    )
    settings = load(config=config)
    (provider,) = settings.file_providers(URLS, now=1)
    assert (provider.api_url, provider.api_key) == ("http://127.0.0.1:8080/v1", SecretStr("sk-secret"))
    assert (provider.enabled, provider.priority, provider.max_retries, provider.timeout_ms) == (False, 3, 5, 100)
    assert (provider.limits, provider.fallback_providers) == ((1, 2, 3), ("claude",))
    assert (provider.config.api, provider.config.zone) == ("responses", "Europe/Paris")
    assert (provider.config.circuit_failures, provider.config.circuit_cooldown_ms, provider.needs_key) == (9, 10, False)
    assert "sk-secret" not in repr(settings) + repr(provider) + settings.model_dump_json()


def test_provider_of_the_file_keeps_its_id(tmp_path: Path) -> None:
    config = write(tmp_path, '[providers.a]\ndialect = "openai"\ndefault_model = "m"\n')
    first, second = (load(config=config).file_providers(URLS, now=now)[0] for now in (1, 2))
    assert first.id == second.id


def test_key_comes_from_the_environment_when_the_table_names_a_variable(tmp_path: Path) -> None:
    config = write(tmp_path, '[providers.a]\ndialect = "openai"\ndefault_model = "m"\napi_key_env = "MY_KEY"\n')
    settings = load(config=config)
    (provider,) = settings.file_providers(URLS, now=1, environ={"MY_KEY": "k"})
    assert provider.api_key == SecretStr("k")
    with pytest.raises(ConfigurationError, match=r"providers\.a\.api_key_env: the environment variable MY_KEY is not set"):
        settings.file_providers(URLS, now=1, environ={})


def test_key_may_be_missing_when_the_provider_is_disabled(tmp_path: Path) -> None:
    config = write(tmp_path, '[providers.a]\ndialect = "openai"\ndefault_model = "m"\napi_key_env = "MY_KEY"\nenabled = false\n')
    assert load(config=config).file_providers(URLS, now=1, environ={})[0].api_key is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('dialect = "openai"', "providers.a.default_model ({}): is missing"),
        ('default_model = "m"', "providers.a.dialect ({}): is missing"),
        (
            'dialect = "openai"\ndefault_model = "m"\nprioriti = 1',
            "providers.a.prioriti ({}): there is no such setting; did you mean priority?",
        ),
        (
            'dialect = "openai"\ndefault_model = "m"\napi_url = "x"',
            "providers.a.api_url ({}): must be a URL such as http://127.0.0.1:8080/v1",
        ),
        (
            'dialect = "openai"\ndefault_model = "m"\nzone = "Mars"',
            "providers.a.zone ({}): must be an IANA time zone such as America/Los_Angeles",
        ),
        (
            'dialect = "openai"\ndefault_model = "m"\napi_key = "sk-x"\napi_key_env = "X"',
            "providers.a ({}): api_key and api_key_env exclude each other",
        ),
        (
            'dialect = "openai"\ndefault_model = "m"\nfallback_providers = ["a"]',
            "providers.a.fallback_providers[0]: is the provider itself",
        ),
    ],
)
def test_provider_of_the_file_is_refused_by_name(tmp_path: Path, table: str, expected: str) -> None:
    config = write(tmp_path, f"[providers.a]\n{table}\n")
    assert complaints(config=config) == [expected.format(config)]


TABLE = '[providers.{}]\ndialect = "openai"\ndefault_model = "m"\nfallback_providers = {}\n'


def test_fallbacks_of_the_file_are_refused_by_name_when_they_could_not_stand_in(tmp_path: Path) -> None:
    config = write(tmp_path, TABLE.format("a", ["b", "claude", "claude"]) + TABLE.format("b", ["c"]) + TABLE.format("c", ["a"]))
    assert complaints(config=config) == [
        "providers.a.fallback_providers[0]: makes a cycle: a → b → c → a",
        "providers.a.fallback_providers[2]: names 'claude' a second time",
        "providers.b.fallback_providers[0]: makes a cycle: b → c → a → b",
        "providers.c.fallback_providers[0]: makes a cycle: c → a → b → c",
    ]


def test_fallbacks_of_the_file_are_refused_by_name_when_the_store_shows_that_they_could_not_stand_in(tmp_path: Path) -> None:
    settings = load(config=write(tmp_path, TABLE.format("a", ["claude", "nobody"])))
    settings.check_fallbacks({"a": ("claude",), "claude": ("gemini",), "gemini": ()})
    with pytest.raises(ConfigurationError) as caught:
        settings.check_fallbacks({"a": ("claude", "nobody"), "claude": ("gemini",), "gemini": ("a",)})
    assert caught.value.lines == [
        "providers.a.fallback_providers[0]: makes a cycle: a → claude → gemini → a",
        "providers.a.fallback_providers[1]: there is no provider named 'nobody'",
    ]


def test_limit_of_zero_is_refused_by_name(tmp_path: Path) -> None:
    config = write(tmp_path, '[providers.a]\ndialect = "openai"\ndefault_model = "m"\nrate_limit_tpm = 0\n')
    (line,) = complaints(config=config)
    assert line.startswith(f"providers.a.rate_limit_tpm ({config}): ")


def test_provider_may_be_disabled_when_others_of_the_file_name_it(tmp_path: Path) -> None:
    config = write(tmp_path, TABLE.format("a", ["b"]) + TABLE.format("b", []) + "enabled = false\n")
    settings = load(config=config)
    settings.check_fallbacks({"a": ("b",), "b": ()})
    assert not settings.providers["b"].enabled


def test_provider_name_is_refused_when_requests_could_not_name_it(tmp_path: Path) -> None:
    config = write(tmp_path, '[providers.A]\ndialect = "openai"\ndefault_model = "m"\n')
    (line,) = complaints(config=config)
    assert line.startswith(f"providers.A ({config}): ")


def test_keys_of_built_in_providers_come_from_the_vendors_variables() -> None:
    environ = {"ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "", "GOOGLE_API_KEY": "g"}
    assert environment_keys(environ) == {"claude": SecretStr("a"), "gemini": SecretStr("g")}


def test_every_setting_is_documented() -> None:
    for model in (Settings, FileProvider):
        assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_document_of_the_settings_is_fresh() -> None:
    tool = Path(__file__).resolve().parent.parent / "tools" / "settings.py"
    checked = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
