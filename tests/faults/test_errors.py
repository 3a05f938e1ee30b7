"""Rows F01 to F19: a provider answers with an error."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from grpc import StatusCode

from support.faults import NO_FALLBACK, Row
from support.seen import Seen

FELL_BACK = "validating requesting validating requesting streaming completed"
KEY = "0123456789"
"""What every key of a script ends with."""


async def test_F01(row: Row) -> None:
    seen = await row.play("F01")
    seen.answers(by="p", text="The second try answers.", path="validating requesting retrying requesting streaming completed")
    seen.waits((0.8, 1.2))
    assert seen.attempts == ["p server_error", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}


async def test_F02(row: Row) -> None:
    for seen in (await row.play("F02"), await row.play("F02", "Generate", rpc="Generate")):
        seen.answers(by="f", text="The fallback answers.")
        seen.waits((0.8, 1.2), (1.6, 2.4))
        assert seen.attempts == ["p server_error"] * 3 + ["f completed"]
        assert seen.result.fallback.provider == "f"
        assert seen.calls == {"p": 3, "f": 1}


async def test_F03(row: Row) -> None:
    for seen in (await row.play("F03"), await row.play("F03", "Generate", rpc="Generate")):
        seen.fails(StatusCode.UNAVAILABLE, "SERVER_ERROR")
        seen.waits((0.8, 1.2), (1.6, 2.4))
        assert seen.pushback == "-1"
        assert [attempt.provider for attempt in seen.details["ProviderError"].attempts] == ["p", "p", "p", "f"]
        for event in seen.events[-1:]:
            assert [attempt.provider for attempt in event.failed.attempts] == ["p", "p", "p", "f"]
        assert seen.attempts == ["p server_error"] * 3 + ["f server_error"]
        assert seen.calls == {"p": 3, "f": 1}


async def test_F04(row: Row) -> None:
    seen = await row.play("F04")
    seen.answers(by="p", path="validating requesting retrying requesting streaming completed")
    seen.waits((0.8, 1.2))
    assert seen.attempts == ["p server_error/OVERLOADED", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}


async def test_F05(row: Row) -> None:
    seen = await row.play("F05")
    seen.answers(by="p", path="validating requesting rate_limited retrying requesting streaming completed")
    seen.waits((2.0, 2.4))
    assert seen.attempts == ["p rate_limit_exceeded", "p completed"]
    assert seen.calls == {"p": 2, "f": 0}


async def test_F06(row: Row) -> None:
    seen = await row.play("F06")
    seen.answers(by="f", path="validating requesting validating requesting streaming completed")
    seen.waits()
    assert seen.attempts == ["p rate_limit_exceeded", "f completed"]
    assert seen.calls == {"p": 1, "f": 1}


async def test_F07(row: Row) -> None:
    for seen in (await row.play("F07"), await row.play("F07", "Generate", rpc="Generate")):
        seen.fails(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", path="validating requesting failed")
        seen.waits()
        assert seen.retry_after == 120
        assert "QuotaFailure" in seen.details
        assert seen.calls == {"p": 1}


async def test_F08(row: Row) -> None:
    seen = await row.play("F08")
    seen.answers(by="p")
    seen.waits((0.25, 0.3))
    assert seen.calls == {"p": 2, "f": 0}


async def test_F09(row: Row) -> None:
    for script in ("F09a", "F09b", "F09c", "F09d", "F09e", "F09f", "F09g"):
        seen = await row.play(script)
        seen.answers(by="p")
        seen.waits((0.8, 1.2))
        assert seen.attempts == ["p rate_limit_exceeded", "p completed"]
        assert seen.calls == {"p": 2, "f": 0}


async def test_F10(row: Row) -> None:
    seen = await row.play("F10")
    seen.answers(by="f")
    seen.waits()
    assert seen.attempts == ["p server_error", "f completed"]
    assert seen.calls == {"p": 1, "f": 1}


async def test_F11(row: Row) -> None:
    seen = await row.play("F11")
    seen.answers(by="p", path="validating requesting rate_limited retrying requesting streaming completed")
    seen.waits((1.0, 1.2))
    assert seen.calls == {"p": 2, "f": 0}


async def test_F12(row: Row) -> None:
    seen = await row.play("F12")
    seen.answers(by="f")
    assert seen.attempts == ["p quota_exceeded/DAILY", "f completed"]
    assert seen.calls == {"p": 1, "f": 1}

    seen = await row.play("F12", "no fallback", request=NO_FALLBACK)
    seen.fails(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "DAILY")
    assert "QuotaFailure" in seen.details
    assert seen.retry_after is None, "the seconds that Google names are not when a day's quota is renewed"
    midnight = datetime.fromisoformat(seen.info["reset_at"]).astimezone(ZoneInfo("America/Los_Angeles"))
    assert (midnight.hour, midnight.minute, midnight.second) == (0, 0, 0)
    assert seen.calls == {"p": 1, "f": 0}


async def test_F13(row: Row) -> None:
    next_month = (datetime.now(UTC).replace(day=1) + timedelta(days=31)).strftime("%Y-%m-01T00:00:00+00:00")
    for script, subreason, renewed in (
        ("F13a", "BILLING", None),
        ("F13b", "SPEND_LIMIT", "2099-04-01T00:00:00+00:00"),
        ("F13c", "SPEND_LIMIT", next_month),
        ("F13d", "ENTITLEMENT", None),
        ("F13e", "BILLING", None),
        ("F13f", "BILLING", None),
    ):
        seen = await row.play(script)
        seen.answers(by="f")
        assert seen.attempts == [f"p quota_exceeded/{subreason}", "f completed"]
        assert seen.calls == {"p": 1, "f": 1}

        seen = await row.play(script, "no fallback", request=NO_FALLBACK)
        seen.fails(StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", subreason)
        assert "QuotaFailure" in seen.details
        assert seen.info.get("reset_at") == renewed
        assert (seen.retry_after is None) == (renewed is None), "a delay is named only where the renewal is known"
        seen.words["RetryInfo"] = "until the renewal"
        assert seen.calls == {"p": 1, "f": 0}


async def test_F14(row: Row) -> None:
    seen = await row.play("F14")
    seen.answers(by="f")
    assert seen.attempts == ["p rate_limit_exceeded/NEVER_FITS", "f completed"]
    assert seen.calls == {"p": 1, "f": 1}

    seen = await row.play("F14", "no fallback", request=NO_FALLBACK)
    seen.fails(StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", "NEVER_FITS")
    assert seen.retry_after is None
    assert seen.calls == {"p": 1, "f": 0}


async def test_F15(row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for script, subreason, calls in (
        ("F15a", "", 1),
        ("F15b", "", 1),
        ("F15c", "", 1),
        ("F15d", "PERMISSION", 1),
        ("F15e", "PERMISSION", 1),
        ("F15f", "REGION", 1),
        ("F15g", "BAD_CREDENTIAL_FORMAT", 0),
    ):
        seen = await row.play(script)
        seen.answers(by="f")
        assert seen.attempts == ["p authentication_error" + (f"/{subreason}" if subreason else ""), "f completed"]
        assert seen.calls == {"p": calls, "f": 1}
        assert KEY not in everything_told(seen)

        seen = await row.play(script, "no fallback", request=NO_FALLBACK)
        seen.fails(StatusCode.FAILED_PRECONDITION, "AUTHENTICATION_ERROR", subreason)
        assert seen.usage_source == "", "what was refused, or never sent, cost nothing"
        assert seen.calls == {"p": calls, "f": 0}
        assert KEY not in everything_told(seen)
    assert KEY not in caplog.text
    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


async def test_F16(row: Row) -> None:
    for script in ("F16a", "F16b", "F16c", "F16d"):
        seen = await row.play(script)
        seen.answers(by="f")
        assert seen.attempts == ["p model_not_found", "f completed"]
        assert [call.json["model"] for call in seen.asked["f"]] == ["mapped-model"]
        assert seen.calls == {"p": 1, "f": 1}

        seen = await row.play(script, "no fallback", request=NO_FALLBACK)
        seen.fails(StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        resource = seen.details["ResourceInfo"]
        assert (resource.resource_type, resource.resource_name) == ("model", "missing-model")
        assert seen.calls == {"p": 1, "f": 0}


async def test_F17(row: Row) -> None:
    for script, field, words in (
        ("F17a", "", "This model does not support effort level"),
        ("F17b", "generation_config.top_k", "top_k must be between 1 and 40"),
        ("F17c", "max_tokens", "Unsupported parameter: 'max_tokens'"),
    ):
        seen = await row.play(script)
        seen.fails(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", path="validating requesting failed")
        (violation,) = seen.details["BadRequest"].field_violations
        assert violation.field == field
        assert violation.description.startswith(words)
        assert seen.calls == {"p": 1, "f": 0}


async def test_F18(row: Row) -> None:
    for script, field in (("F18a", "messages"), ("F18b", ""), ("F18c", "messages")):
        seen = await row.play(script)
        seen.fails(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "CONTEXT_LENGTH", path="validating requesting failed")
        assert [violation.field for violation in seen.details["BadRequest"].field_violations] == [field]
        assert seen.calls == {"p": 1, "f": 0}

        seen = await row.play(script, "with on_context_length", request={"fallback": {"on_context_length": True}})
        seen.answers(by="f", text="The fallback answers.", path=FELL_BACK)
        assert seen.attempts == ["p invalid_request/CONTEXT_LENGTH", "f completed"]
        assert seen.calls == {"p": 1, "f": 1}

        seen = await row.play(script, "with on_content_filter, which is another", request={"fallback": {"on_content_filter": True}})
        seen.fails(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "CONTEXT_LENGTH")
        assert seen.calls == {"p": 1, "f": 0}


async def test_F19(row: Row) -> None:
    for script in ("F19a", "F19b", "F19c", "F19d", "F19e"):
        seen = await row.play(script)
        seen.fails(StatusCode.INVALID_ARGUMENT, "CONTENT_FILTER", path="validating requesting failed")
        assert "BadRequest" in seen.details
        assert seen.calls == {"p": 1, "f": 0}

        seen = await row.play(script, "with on_content_filter", request={"fallback": {"on_content_filter": True}})
        seen.answers(by="f", text="The fallback answers.", path=FELL_BACK if seen.events else None)
        assert seen.attempts == ["p content_filter", "f completed"]
        assert seen.calls == {"p": 1, "f": 1}

        seen = await row.play(script, "with on_context_length, which is another", request={"fallback": {"on_context_length": True}})
        seen.fails(StatusCode.INVALID_ARGUMENT, "CONTENT_FILTER")
        assert seen.calls == {"p": 1, "f": 0}


def everything_told(seen: Seen) -> str:
    """All that the caller and the record hold of a request."""
    told = [*seen.events, seen.record, seen.row.model_dump_json() if seen.row else ""]
    if seen.error is not None:
        told += [seen.error.details(), *seen.details.values(), seen.error.trailing_metadata()]
    return "\n".join(map(str, told))
