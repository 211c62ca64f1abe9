"""Tasks and helpers that flows of ``planned`` import."""

from __future__ import annotations

from typing import Any

from perfect_client import task


@task
def fetch(x: Any = None) -> Any:
    return x


@task
def extract(x: Any = None) -> Any:
    return x


@task
def store() -> None: ...


@task
async def download(x: Any = None) -> Any:
    return x


@task
async def download_more(x: Any = None) -> Any:
    return x


def fetch_all() -> Any:
    return [fetch(number) for number in range(5)]
