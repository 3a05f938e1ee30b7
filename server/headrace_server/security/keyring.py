"""Secrets at rest: AES-256-GCM with a ring of keys.

An encrypted secret is the text `v1:<key id>:<base64 of nonce, ciphertext and tag>`. The version, the key's id and the provider's name are
associated data, so a value that is copied to another provider's row cannot be decrypted there.

A key ring is a text of lines `<key id>:<base64 of 32 bytes>`; the last key encrypts, all of them decrypt. It comes from the environment
variable HEADRACE_KEYRING (whitespace stands for the ends of lines) or from a file that only its owner can read. To rotate, append a key
(`add_key`); whatever is encrypted from then on uses it. A key may be removed once nothing is encrypted with it.
"""

import base64
import binascii
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ENVIRONMENT_VARIABLE = "HEADRACE_KEYRING"

_VERSION = "v1"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class KeyRingError(Exception):
    """The key ring cannot be used, or a secret cannot be encrypted or decrypted. Its text names no key and no secret."""


class KeyRing:
    """Encrypts and decrypts the secrets of providers."""

    def __init__(self, keys: Mapping[str, bytes], *, path: Path | None = None) -> None:
        """Keys of 32 bytes by id, the newest last; `path` is the file they came from, made at the first `encrypt` where it is missing."""
        self._keys = {key_id: _Key(key) for key_id, key in keys.items()}
        self._path = path

    @classmethod
    def open(cls, path: Path, environ: Mapping[str, str] = os.environ) -> "KeyRing":
        """The ring in HEADRACE_KEYRING, else the one in the file, which need not exist yet. Raises KeyRingError."""
        if text := environ.get(ENVIRONMENT_VARIABLE, "").strip():
            return cls(_parse(text, ENVIRONMENT_VARIABLE))
        return cls(_read(path), path=path)

    @classmethod
    def ephemeral(cls) -> "KeyRing":
        """A ring with one new key that is kept nowhere: what it encrypts is lost with the process."""
        return cls(_new_key())

    def encrypt(self, provider: str, secret: str) -> str:
        """The secret as a text that may be stored with this provider, and only with it. Raises KeyRingError."""
        if not self._keys:
            self._create()
        key_id, key = next(reversed(self._keys.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        try:
            plaintext = secret.encode()
        except UnicodeEncodeError:  # its text and its attributes hold the secret
            raise KeyRingError(f"the key of provider {provider!r} cannot be encrypted: it is not valid Unicode") from None
        sealed = nonce + key.cipher().encrypt(nonce, plaintext, _associated_data(key_id, provider))
        return f"{_VERSION}:{key_id}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, provider: str, token: str) -> str:
        """The secret that `encrypt` made this text of, for the same provider. Raises KeyRingError."""
        failed = f"the key of provider {provider!r} cannot be decrypted"
        version, _, rest = token.partition(":")
        key_id, _, encoded = rest.partition(":")
        if version != _VERSION or not _KEY_ID.fullmatch(key_id):
            raise KeyRingError(f"{failed}: it is not of the form {_VERSION}:<key id>:<base64>")
        key = self._find(key_id)
        if key is None:
            raise KeyRingError(f"{failed}: the key ring has no key {key_id!r}")
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(encoded, validate=True)
            return key.cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _associated_data(key_id, provider)).decode()
        except (binascii.Error, ValueError, InvalidTag):
            raise KeyRingError(f"{failed}: it was changed, or encrypted for another provider") from None

    def __repr__(self) -> str:
        return f"KeyRing(keys={list(self._keys)})"

    def _find(self, key_id: str) -> "_Key | None":
        """A key by its id; the file is read again where it may have grown, by a rotation or by the process that created it."""
        if key_id not in self._keys and self._path is not None:
            self._load(self._path)
        return self._keys.get(key_id)

    def _create(self) -> None:
        if self._path is None:
            raise KeyRingError("the key ring has no key")
        _create(self._path)
        self._load(self._path)

    def _load(self, path: Path) -> None:
        self._keys = {key_id: _Key(key) for key_id, key in _read(path).items()}


def add_key(path: Path) -> str:
    """Rotate: append a new key to the ring in the file, or create it, and return the key's id. Raises KeyRingError.

    Running processes decrypt with the new key at once, and encrypt with it after their next start.
    """
    if not _read(path) and _create(path):
        return next(reversed(_read(path)))
    ((key_id, key),) = _new_key().items()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            # One write in append mode, so that rotations at the same time lose no key. The file may lack its last newline.
            os.write(descriptor, f"\n{_line(key_id, key)}".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyRingError(f"the key ring {path} cannot be written: {error.strerror}") from None
    return key_id


class _Key:
    """A key, which no text and no pickle shows."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def cipher(self) -> "AESGCM":
        """What encrypts and decrypts with it."""
        # Imported here: it takes 8 MB, and a service whose keys stand in its configuration encrypts nothing.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled")


def _new_key() -> dict[str, bytes]:
    return {secrets.token_hex(4): secrets.token_bytes(_KEY_BYTES)}


def _associated_data(key_id: str, provider: str) -> bytes:
    return f"headrace:{_VERSION}:{key_id}:{provider}".encode()


def _line(key_id: str, key: bytes) -> str:
    return f"{key_id}:{base64.b64encode(key).decode()}\n"


def _create(path: Path) -> bool:
    """Make a file with one new key; False where there is one already. It appears whole or not at all, and never replaces another."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with open(descriptor, "w") as file:
                file.write("".join(_line(key_id, key) for key_id, key in _new_key().items()))
                file.flush()
                os.fsync(file.fileno())
            os.link(name, path)  # fails where another process was first
        finally:
            os.unlink(name)
        _sync_directory(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise KeyRingError(f"the key ring {path} cannot be created: {error.strerror}") from None
    return True


def _sync_directory(directory: Path) -> None:
    """Without this a power loss could take the new file, and with it every secret."""
    with contextlib.suppress(PermissionError):  # Windows opens no directories
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path) -> dict[str, bytes]:
    """The keys in the file; none where there is no file."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if os.name == "posix" and mode & 0o077:
                raise KeyRingError(f"the key ring {path} is open to others (mode {mode:04o}): run chmod 600 {path}")
            return _parse(file.read(), str(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyRingError(f"the key ring {path} cannot be read: {error.strerror}") from None


def _parse(text: str, source: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, entry in enumerate(text.split(), 1):
        key_id, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not _KEY_ID.fullmatch(key_id) or len(key) != _KEY_BYTES:
            raise KeyRingError(
                f"the key ring {source} is broken: entry {number} is not of the form <key id>:<base64 of {_KEY_BYTES} bytes>"
            )
        if key_id in keys:
            raise KeyRingError(f"the key ring {source} is broken: it has two keys {key_id!r}")
        keys[key_id] = key
    if not keys:
        raise KeyRingError(f"the key ring {source} is empty")
    return keys
