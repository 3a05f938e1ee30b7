import json
from typing import Any

import pytest
from pydantic import SecretStr

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.domain.errors import Refusal
from headrace_server.domain.health import ProviderHealth
from headrace_server.domain.limits import LimitType, Window
from headrace_server.domain.provider import CircuitState, Dialect, Provider, ProviderRow, ProviderSettings, ProviderSource
from headrace_server.rpc.codec_provider import (
    ProviderEdit,
    decode_create_provider,
    decode_update_provider,
    encode_provider,
    encode_quota,
)

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
URLS = {Dialect.CLAUDE: "https://claude.example", Dialect.GEMINI: "https://gemini.example", Dialect.OPENAI: "https://openai.example"}
STORED = ProviderRow(
    id=ID,
    provider="mine",
    dialect=Dialect.OPENAI,
    enabled=False,
    priority=7,
    api_key_encrypted="v1:old",
    api_url="https://mine.example",
    default_model="m",
    rate_limit_rpm=5,
    fallback_providers=("other",),
    config=ProviderSettings(circuit_failures=9),
    created_at=1,
    updated_at=2,
)


def create(**fields: Any) -> ProviderEdit:
    right = {"provider": "mine", "dialect": "DIALECT_OPENAI", "default_model": "m"}
    return decode_create_provider(pb.CreateProviderRequest(provider=right | fields), row_id=ID, now=5, default_urls=URLS)


def update(paths: list[str], **fields: Any) -> ProviderEdit:
    message = pb.UpdateProviderRequest(provider={"provider": "mine"} | fields, update_mask={"paths": paths})
    return decode_update_provider(message, STORED, now=5, default_urls=URLS)


def violations(call: Any, *args: Any, **fields: Any) -> dict[str, str]:
    with pytest.raises(Refusal) as caught:
        call(*args, **fields)
    return {v.field: v.description for v in caught.value.fault.violations}


def test_a_new_provider_takes_the_documented_defaults() -> None:
    edit = create()
    assert edit.new_key is None
    assert edit.row == ProviderRow(
        id=ID,
        provider="mine",
        dialect=Dialect.OPENAI,
        enabled=True,
        priority=100,
        api_url="https://openai.example",
        default_model="m",
        max_retries=3,
        timeout_ms=30_000,
        created_at=5,
        updated_at=5,
    )


def test_a_new_provider_takes_what_is_set_also_where_that_is_zero() -> None:
    edit = create(enabled=False, priority=0, api_key="sk-123", config_json='{"api":"responses"}', rate_limit_tpm=9, api_url="http://x")
    assert (edit.row.enabled, edit.row.priority, edit.row.rate_limit_tpm, edit.row.config.api) == (False, 0, 9, "responses")
    assert edit.row.api_url == "http://x"
    assert edit.row.api_key_encrypted is None
    assert edit.new_key is not None
    assert edit.new_key.get_secret_value() == "sk-123"
    assert "sk-123" not in repr(edit)


def test_output_only_fields_of_a_new_provider_are_passed_over() -> None:
    assert create(id="x", has_api_key=True, api_key_last_four="1234", source="PROVIDER_SOURCE_FILE").row == create().row


def test_everything_wrong_with_a_new_provider_is_named_at_once() -> None:
    found = violations(
        create,
        provider="Not Ok",
        dialect=0,
        priority=-1,
        default_model="",
        api_key="two words",
        max_retries=0,
        timeout_ms=0,
        rate_limit_rpm=0,
        fallback_providers=["ok", "Not Ok"],
        config_json='{"api": "telepathy", "zone": "Mars/Olympus", "colour": 1}',
    )
    assert set(found) == {
        "provider.provider",
        "provider.dialect",
        "provider.priority",
        "provider.default_model",
        "provider.api_key",
        "provider.max_retries",
        "provider.timeout_ms",
        "provider.rate_limit_rpm",
        "provider.fallback_providers[1]",
        "provider.config_json.api",
        "provider.config_json.zone",
        "provider.config_json.colour",
    }
    assert found["provider.dialect"] == "must be set"


@pytest.mark.parametrize("text", ["[", "[]", "1", "null", "[" * 5_000, '{"circuit_failures": NaN}'])
def test_settings_that_are_no_json_object_are_a_violation(text: str) -> None:
    assert set(violations(create, config_json=text)) <= {"provider.config_json", "provider.config_json.circuit_failures"}


@pytest.mark.parametrize("key", ["a\nb", "ключ", "x" * 5_000, " x"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    found = violations(create, api_key=key)
    assert set(found) == {"provider.api_key"}
    assert key not in found["provider.api_key"]


def test_only_the_named_fields_change() -> None:
    edit = update(["priority", "default_model"], priority=1, default_model="new", enabled=True, rate_limit_rpm=77)
    assert edit.row == STORED.model_copy(update={"priority": 1, "default_model": "new", "updated_at": 5})
    assert edit.new_key is None


def test_a_field_that_is_named_but_not_set_goes_back_to_its_default() -> None:
    paths = ["enabled", "priority", "api_url", "max_retries", "timeout_ms", "rate_limit_rpm", "fallback_providers", "config_json"]
    row = update(paths).row
    assert (row.enabled, row.priority, row.api_url, row.rate_limit_rpm) == (True, 100, "https://openai.example", None)
    assert (row.fallback_providers, row.config) == ((), ProviderSettings())


def test_a_key_is_kept_replaced_or_removed_as_the_mask_says() -> None:
    kept = update(["priority"], api_key="not named")
    assert (kept.row.api_key_encrypted, kept.new_key) == ("v1:old", None)
    removed = update(["api_key"])
    assert (removed.row.api_key_encrypted, removed.new_key) == (None, None)
    replaced = update(["api_key"], api_key="sk-new")
    assert replaced.row.api_key_encrypted is None
    assert replaced.new_key is not None
    assert replaced.new_key.get_secret_value() == "sk-new"


def test_a_mask_names_its_wrong_paths_besides_the_wrong_values() -> None:
    paths = ["priority", "provider", "dialect", "id", "health", "nonsense", "*", "default_model"]
    found = violations(update, paths, priority=-1)
    assert set(found) == {
        "provider.priority",
        "provider.default_model",
        *(f"update_mask.paths[{i}]" for i in range(1, 7)),
    }
    assert found["update_mask.paths[1]"] == "provider cannot be changed"
    assert found["update_mask.paths[3]"] == "id is output only"
    assert found["update_mask.paths[5]"] == "is not the name of a field"
    assert violations(update, []) == {"update_mask": "must name at least one field"}


def test_a_provider_is_shown_without_its_key() -> None:
    key = "sk-ant-0123456789abcd"
    provider = Provider(**dict(STORED), api_key=SecretStr(key), source=ProviderSource.FILE)
    health = ProviderHealth(circuit_state=CircuitState.OPEN, circuit_retry_time=9_000, error_rate=0.5, latency=120, calls=4)
    message = encode_provider(provider, health)
    assert key.encode() not in message.SerializeToString()
    assert b"v1:old" not in message.SerializeToString()
    assert (message.has_api_key, message.api_key_last_four, message.api_key) == (True, "abcd", "")
    assert (message.enabled, message.priority, message.rate_limit_rpm) == (False, 7, 5)
    assert not message.HasField("rate_limit_tpm")
    assert json.loads(message.config_json)["circuit_failures"] == 9
    assert (message.dialect, message.source) == (3, 1)
    assert message.health.latency.ToMilliseconds() == 120
    assert message.health.circuit_retry_time.ToMilliseconds() == 9_000


@pytest.mark.parametrize(("key", "shown"), [("x" * 11, ""), ("12345678abcd", "abcd"), ("", "")])
def test_the_last_characters_are_shown_of_long_keys_only(key: str, shown: str) -> None:
    provider = Provider(**dict(STORED), api_key=SecretStr(key) if key else None)
    assert encode_provider(provider).api_key_last_four == shown
    assert encode_provider(provider).has_api_key == bool(key)


def test_a_provider_as_shown_can_be_created_again() -> None:
    shown = encode_provider(Provider(**dict(STORED)))
    edit = decode_create_provider(pb.CreateProviderRequest(provider=shown), row_id=ID, now=1, default_urls=URLS)
    assert edit.row == STORED.model_copy(update={"api_key_encrypted": None, "updated_at": 1})


def test_a_quota_shows_the_window_as_it_stands_now() -> None:
    window = Window(
        provider="p",
        model="m",
        limit_type=LimitType.REQUESTS_PER_MINUTE,
        limit_value=50,
        current_usage=10,
        previous_usage=20,
        reserved=3,
        reset_at=120_000,
    )
    quota = encode_quota(window, 90_000)
    assert (quota.used, quota.reserved, quota.limit, quota.limit_type) == (20, 3, 50, 1)
    assert quota.reset_time.ToMilliseconds() == 180_000
    assert encode_quota(window, 300_000).used == 0
