"""Providers, their settings, health and quotas, between protobuf and the domain."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from pydantic import SecretStr, ValidationError

from headrace.v1 import provider_service_pb2 as pb
from headrace_server.domain import limits
from headrace_server.domain.health import ProviderHealth
from headrace_server.domain.limits import LimitType, Window
from headrace_server.domain.provider import Dialect, Provider, ProviderRow, ProviderSettings
from headrace_server.domain.violations import faults_of, validate
from headrace_server.rpc.codec_values import (
    CIRCUIT_STATE,
    DIALECT,
    LIMIT_TYPE,
    PROVIDER_SOURCE,
    Wrong,
    int32,
    int64,
    maybe_duration,
    maybe_timestamp,
    timestamp_of,
)

SHORTEST_SHOWN_KEY = 12
"""Of shorter keys not even the last four characters are shown."""

MAX_KEY_LENGTH = 4_096

_OPTIONAL: Final = ("enabled", "priority", "max_retries", "timeout_ms", "rate_limit_rpm", "rate_limit_tpm", "rate_limit_rpd")
_CHANGEABLE = (*_OPTIONAL, "api_key", "api_url", "default_model", "fallback_providers", "config_json")
_FIXED = ("provider", "dialect")


# ---------------------------------------------------------------- to protobuf


def encode_provider(provider: Provider, health: ProviderHealth | None = None) -> pb.Provider:
    """A provider in protobuf. Of its key only its presence and its last four characters are told."""
    key = "" if provider.api_key is None else provider.api_key.get_secret_value()
    return pb.Provider(
        id=provider.id,
        provider=provider.provider,
        dialect=DIALECT.numbers[provider.dialect],
        enabled=provider.enabled,
        priority=provider.priority,
        has_api_key=bool(key),
        api_key_last_four=key[-4:] if len(key) >= SHORTEST_SHOWN_KEY else "",
        api_url=provider.api_url,
        default_model=provider.default_model,
        max_retries=provider.max_retries,
        timeout_ms=provider.timeout_ms,
        rate_limit_rpm=provider.rate_limit_rpm,
        rate_limit_tpm=provider.rate_limit_tpm,
        rate_limit_rpd=provider.rate_limit_rpd,
        fallback_providers=provider.fallback_providers,
        config_json=provider.config.model_dump_json(),
        created_at=timestamp_of(provider.created_at),
        updated_at=timestamp_of(provider.updated_at),
        source=PROVIDER_SOURCE.numbers[provider.source],
        health=None if health is None else _encode_health(health),
    )


def _encode_health(health: ProviderHealth) -> pb.ProviderHealth:
    return pb.ProviderHealth(
        circuit_state=CIRCUIT_STATE.numbers[health.circuit_state],
        circuit_retry_time=maybe_timestamp(health.circuit_retry_time),
        error_rate=health.error_rate,
        latency=maybe_duration(health.latency),
        calls=int32(health.calls),
    )


def encode_quota(window: Window, now: int, zone: str = "UTC") -> pb.Quota:
    """The counter of a limit as it stands at `now`; `zone` is the provider's, for limits of a day."""
    window = limits.roll(window, now, zone)
    slides = window.limit_type is not LimitType.REQUESTS_PER_DAY
    return pb.Quota(
        provider=window.provider,
        model=window.model,
        limit_type=LIMIT_TYPE.numbers[window.limit_type],
        used=int64(limits.used(window, now)),
        reserved=int64(window.reserved),
        limit=int64(window.limit_value),
        # What was used in this minute still counts, less and less, until the end of the next one.
        reset_time=timestamp_of(window.reset_at + limits.MINUTE if slides and window.current_usage else window.reset_at),
    )


# ---------------------------------------------------------------- from protobuf


@dataclass(frozen=True, slots=True)
class ProviderEdit:
    """A provider's row as it shall be stored, but for a new key.

    `new_key` is still to be encrypted into `row.api_key_encrypted`; None: the row is right as it stands (with the old key, or none).
    """

    row: ProviderRow
    new_key: SecretStr | None


def decode_create_provider(
    message: pb.CreateProviderRequest, *, row_id: str, now: int, default_urls: Mapping[Dialect, str]
) -> ProviderEdit:
    """The new provider. Fields that are output only are passed over. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    provider = message.provider
    dialect = DIALECT.member(provider.dialect)
    # What the address of an unknown dialect would be is not worth a violation of its own.
    default_url = default_urls[dialect] if isinstance(dialect, Dialect) else "unknown"
    fields = {
        **{"id": row_id, "created_at": now, "updated_at": now, "provider": provider.provider},
        **DIALECT.required("dialect", provider.dialect),
        **_changed_fields(provider, _CHANGEABLE, default_url, wrong),
    }
    return _edit(fields, provider.api_key, wrong)


def decode_update_provider(
    message: pb.UpdateProviderRequest, stored: ProviderRow, *, now: int, default_urls: Mapping[Dialect, str]
) -> ProviderEdit:
    """The stored provider with the fields changed that the mask names. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    provider = message.provider
    named = _named_fields(message.update_mask, wrong)
    fields = {name: getattr(stored, name) for name in ProviderRow.model_fields}
    fields |= _changed_fields(provider, named, default_urls[stored.dialect], wrong) | {"updated_at": now}
    if "api_key" in named:
        fields["api_key_encrypted"] = None
    return _edit(fields, provider.api_key if "api_key" in named else "", wrong)


def _named_fields(mask: FieldMask, wrong: Wrong) -> list[str]:
    if not mask.paths:
        wrong.append((("update_mask",), "must name at least one field"))
    named = []
    for i, path in enumerate(mask.paths):
        if path in _CHANGEABLE:
            named.append(path)
        elif path in _FIXED:
            wrong.append((("update_mask", "paths", i), f"{path} cannot be changed"))
        elif path in pb.Provider.DESCRIPTOR.fields_by_name:
            wrong.append((("update_mask", "paths", i), f"{path} is output only"))
        else:
            wrong.append((("update_mask", "paths", i), "is not the name of a field"))
    return named


def _changed_fields(message: pb.Provider, named: Collection[str], default_url: str, wrong: Wrong) -> dict[str, Any]:
    """The named fields of the row; one that is not set is left to its default."""
    fields: dict[str, Any] = {}
    for name in _OPTIONAL:
        if name in named:
            fields[name] = getattr(message, name) if message.HasField(name) else ProviderRow.model_fields[name].default
    for name in named:
        if name == "api_url":
            fields["api_url"] = message.api_url or default_url
        elif name == "default_model":
            fields["default_model"] = message.default_model
        elif name == "fallback_providers":
            fields["fallback_providers"] = message.fallback_providers[:65]
        elif name == "config_json":
            fields["config"] = _settings(message.config_json, wrong)
    return fields


def _settings(text: str, wrong: Wrong) -> ProviderSettings:
    if text:
        try:
            return ProviderSettings.model_validate_json(text)
        except ValidationError as error:
            wrong.extend([(("provider", "config_json", *loc), sentence) for loc, sentence in faults_of(error)])
    return ProviderSettings()


def _edit(fields: dict[str, Any], key: str, wrong: Wrong) -> ProviderEdit:
    if len(key) > MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()) or " " in key:
        wrong.append((("provider", "api_key"), f"must be at most {MAX_KEY_LENGTH:,} printable ASCII characters without spaces"))
    row = validate(ProviderRow.model_validate, fields, wrong, under=("provider",))
    return ProviderEdit(row, SecretStr(key) if key else None)
