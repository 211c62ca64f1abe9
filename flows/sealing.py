"""Secrets at rest: the rows of the database hold them encrypted, with a key that is not in the database."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from perfect_client.schema import masking
from perfect_client.wire.messages import dumps

MARK = "perfect:sealed:1:"  # what an encrypted value begins with
ALL = {"writeOnly": True}  # the schema of what is secret as a whole
NO_KEY = (
    "it was encrypted with a key that this server does not have. Put that key back (PERFECT_ENCRYPTION_KEY,"
    " or the file encryption_key in PERFECT_HOME) and restart the server, or give the value anew"
)


class Unreadable(str):
    """An encrypted value for which there is no key. Its string is what stands in the row, and is written back."""


def seal(value: Any, schema: masking.Schema) -> Any:
    """The JSON value with each part that doors show as ``***`` encrypted."""
    return _seal(value, masking.mask(value, schema))


def _seal(value: Any, shown: Any) -> Any:
    if isinstance(value, Unreadable):
        return str(value)
    if isinstance(value, str) and value.startswith(MARK):  # who sends it must not have it opened
        return _encrypt(value)
    if shown == masking.MASK:
        return _encrypt(value)
    if isinstance(value, Mapping):
        return {name: _seal(item, shown[name]) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_seal(item, other) for item, other in zip(value, shown, strict=True)]
    return value


def unseal(value: Any) -> Any:
    """The value as it was given to ``seal``; what no key opens becomes ``Unreadable``."""
    if isinstance(value, str):
        return _decrypt(value) if value.startswith(MARK) else value
    if isinstance(value, dict):
        return {name: unseal(item) for name, item in value.items()}
    if isinstance(value, list):
        return [unseal(item) for item in value]
    return value


def unreadable(value: Any) -> bool:
    """Whether a part of the value could not be decrypted."""
    if isinstance(value, Mapping):
        return any(map(unreadable, value.values()))
    if isinstance(value, list | tuple):
        return any(map(unreadable, value))
    return isinstance(value, Unreadable)


def _encrypt(value: Any) -> str:
    return MARK + _box(tuple(settings.PERFECT_ENCRYPTION_KEYS)).encrypt(dumps(value).encode()).decode()


def _decrypt(text: str) -> Any:
    try:
        return json.loads(_box(tuple(settings.PERFECT_ENCRYPTION_KEYS)).decrypt(text.removeprefix(MARK)))
    except InvalidToken:
        return Unreadable(text)


@lru_cache(maxsize=8)
def _box(keys: tuple[str, ...]) -> MultiFernet:
    """Encrypts with the first key and decrypts with any. A key is any long random text."""
    digests = [hashlib.sha256(b"Perfect, secrets at rest\0" + key.encode()).digest() for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])
