"""Secrets at rest: only the ring opens them, only for their provider, and nothing of them shows anywhere."""

import base64
import logging
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_server.security.keyring import ENVIRONMENT_VARIABLE, KeyRing, KeyRingError, add_key

CANARY = "canary-2f8e61c07d"
KEY_A, KEY_B = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keyring"


def entry(key_id: str, key: bytes) -> str:
    return f"{key_id}:{base64.b64encode(key).decode()}"


@given(secret=st.text(st.characters(exclude_categories=["Cs"])), provider=st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True))
def test_secret_comes_back_when_decrypted_for_its_provider(secret: str, provider: str) -> None:
    ring = KeyRing({"a": KEY_A})
    token = ring.encrypt(provider, secret)
    assert token.startswith("v1:a:")
    assert ring.decrypt(provider, token) == secret
    assert len(secret) < 8 or secret not in token


def test_two_encryptions_of_one_secret_differ() -> None:
    ring = KeyRing.ephemeral()
    assert ring.encrypt("claude", CANARY) != ring.encrypt("claude", CANARY)


def test_stolen_value_is_useless_when_used_for_another_provider() -> None:
    ring = KeyRing.ephemeral()
    token = ring.encrypt("claude", CANARY)
    with pytest.raises(KeyRingError, match="'evil' cannot be decrypted: it was changed, or encrypted for another provider"):
        ring.decrypt("evil", token)


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_changed_value_is_refused_at_every_byte(position: int, flip: int) -> None:
    ring = KeyRing({"a": KEY_A})
    prefix, encoded = ring.encrypt("claude", CANARY).rsplit(":", 1)
    sealed = bytearray(base64.b64decode(encoded))
    sealed[position % len(sealed)] ^= flip
    with pytest.raises(KeyRingError, match="'claude'"):
        ring.decrypt("claude", f"{prefix}:{base64.b64encode(sealed).decode()}")


def test_value_is_refused_when_it_names_another_key_of_the_ring() -> None:
    ring = KeyRing({"a": KEY_A, "b": KEY_A})
    token = ring.encrypt("claude", CANARY)
    with pytest.raises(KeyRingError):
        ring.decrypt("claude", token.replace("v1:b:", "v1:a:"))


@pytest.mark.parametrize("token", ["", "v1", "v1:", "v1:a", "v1:a:", "v1:a:AAAA", "v1:a:%%%", "v2:a:AAAA", "v1:a b:AAAA", f"{CANARY}"])
def test_malformed_value_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(KeyRingError, match="'claude' cannot be decrypted") as caught:
        KeyRing({"a": KEY_A}).decrypt("claude", token)
    assert CANARY not in str(caught.value)


def test_newest_key_encrypts_and_all_decrypt_when_the_ring_holds_several() -> None:
    old = KeyRing({"a": KEY_A}).encrypt("claude", CANARY)
    ring = KeyRing({"a": KEY_A, "b": KEY_B})
    assert ring.encrypt("claude", CANARY).startswith("v1:b:")
    assert ring.decrypt("claude", old) == CANARY
    with pytest.raises(KeyRingError, match="the key ring has no key 'a'"):
        KeyRing({"b": KEY_B}).decrypt("claude", old)


def test_environment_wins_over_the_file(path: Path) -> None:
    environ = {ENVIRONMENT_VARIABLE: f"{entry('a', KEY_A)}\n {entry('b', KEY_B)} "}
    ring = KeyRing.open(path, environ)
    assert ring.encrypt("claude", CANARY).startswith("v1:b:")
    assert not path.exists()


def test_file_is_created_for_its_owner_only_when_first_needed(path: Path) -> None:
    ring = KeyRing.open(path, {})
    assert not path.exists()
    token = ring.encrypt("claude", CANARY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["keyring"]
    assert KeyRing.open(path, {}).decrypt("claude", token) == CANARY


def test_file_is_not_created_when_only_decrypting(path: Path) -> None:
    with pytest.raises(KeyRingError, match="the key ring has no key 'a'"):
        KeyRing.open(path, {}).decrypt("claude", "v1:a:AAAA")
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o601])
def test_file_is_refused_when_others_may_touch_it(path: Path, mode: int) -> None:
    add_key(path)
    path.chmod(mode)
    with pytest.raises(KeyRingError, match=rf"is open to others \(mode {mode:04o}\): run chmod 600"):
        KeyRing.open(path, {})


def test_file_is_accepted_when_it_is_read_only(path: Path) -> None:
    add_key(path)
    path.chmod(0o400)
    ring = KeyRing.open(path, {})
    assert ring.decrypt("claude", ring.encrypt("claude", CANARY)) == CANARY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n", "is empty"),
        (CANARY, "is broken: entry 1"),
        (entry("a", KEY_A[:16]), "is broken: entry 1"),
        (f"{entry('a', KEY_A)}\na:{CANARY}", "is broken: entry 2"),
        (f"{entry('a', KEY_A)}\n{entry('a', KEY_B)}", "two keys 'a'"),
        (entry("a b", KEY_A), "is broken"),
        ("a:é", "is broken"),
    ],
)
def test_file_is_refused_without_showing_it_when_it_is_broken(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "keyring"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(KeyRingError, match=why) as caught:
        KeyRing.open(path, {})
    assert CANARY not in str(caught.value)


def test_file_that_cannot_be_made_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "keyring"
    with pytest.raises(KeyRingError, match="file/keyring cannot be"):
        KeyRing.open(path, {}).encrypt("claude", CANARY)


def test_running_ring_reads_the_file_again_when_another_process_added_a_key(path: Path) -> None:
    first, second = KeyRing.open(path, {}), KeyRing.open(path, {})
    assert second.decrypt("claude", first.encrypt("claude", CANARY)) == CANARY
    newest = add_key(path)
    token = KeyRing.open(path, {}).encrypt("claude", CANARY)
    assert token.startswith(f"v1:{newest}:")
    assert first.decrypt("claude", token) == CANARY


def test_rotation_loses_no_key_when_the_file_lacks_its_last_newline(path: Path) -> None:
    token = KeyRing.open(path, {}).encrypt("claude", CANARY)
    path.write_text(path.read_text().rstrip("\n"))
    add_key(path)
    assert KeyRing.open(path, {}).decrypt("claude", token) == CANARY


def test_processes_share_one_ring_when_all_create_it_at_once(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from headrace_server.security.keyring import KeyRing\n"
        "ring = KeyRing.open(Path(sys.argv[1]), {}); print('ready', flush=True); sys.stdin.readline()\n"
        "print(ring.encrypt('claude', sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path), CANARY]
    processes = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    tokens = [process.communicate()[0].strip() for process in processes]
    ring = KeyRing.open(path, {})
    assert [ring.decrypt("claude", token) for token in tokens] == [CANARY] * 4
    assert len(path.read_text().split()) == 1


def test_no_secret_shows_in_texts_logs_or_errors(caplog: pytest.LogCaptureFixture, path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    ring = KeyRing.open(path, {})
    token = ring.encrypt("claude", CANARY)
    shown = [repr(ring), str(ring), f"{vars(ring)}"]
    for provider, wrong in (("other", token), ("claude", f"v1:nope:{CANARY}"), ("claude", CANARY)):
        with pytest.raises(KeyRingError) as caught:
            ring.decrypt(provider, wrong)
        shown += traceback.format_exception(caught.value)
    with pytest.raises(KeyRingError, match="not valid Unicode") as caught:
        ring.encrypt("claude", CANARY + "\ud800")
    shown += traceback.format_exception(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(TypeError):
        pickle.dumps(ring)
    shown.append(caplog.text)
    key = path.read_text().split(":")[1].strip()
    assert not [text for text in shown if CANARY in text or key in text]
