"""``concurrency(…)`` and ``rate_limit(…)``: limits that all runs share, kept by the server.

What is taken belongs to the attempt that took it. It is given back when the block ends, and in the same transaction
in which the server hears that the run has ended, however it ended: there is no lease to renew and none to outlive it.
A worker that is out of contact keeps what its runs have taken until the server gives them up.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Union

from perfect_client.core.previews import preview
from perfect_client.errors import Unanswered
from perfect_client.questions import client
from perfect_client.questions.question import Body, Question
from perfect_client.wire.messages import MAX_LIMITS_AT_ONCE, MAX_SLOTS


class AcquireConcurrencySlotTimeoutError(TimeoutError):
    """The slots did not come free within ``timeout_seconds``."""


class ConcurrencySlotAcquisitionError(Unanswered):
    """The limit cannot be had: there is none of that name (``strict=True``), or it has fewer slots than asked for."""


Names = Union[str, Sequence[str]]


class concurrency:
    """Context manager, for ``with`` and ``async with``: inside it ``occupy`` slots of each limit in ``names`` are held.

    All of them are taken at once, in the order in which was asked, so that two blocks never wait for each other. Limits
    are made in the console or through the API; a name without one does not limit, unless ``strict``. Raises
    ``AcquireConcurrencySlotTimeoutError`` after ``timeout_seconds``, ``ConcurrencySlotAcquisitionError`` for what can
    never be had. The other arguments are taken for programs written for Prefect: slots are held as long as the run
    lives, so there is nothing to renew.
    """

    def __init__(
        self,
        names: Names,
        occupy: int = 1,
        timeout_seconds: Optional[float] = None,
        max_retries: Optional[int] = None,
        lease_duration: float = 300,
        strict: bool = False,
        holder: Any = None,
        raise_on_lease_renewal_failure: Optional[bool] = None,
    ) -> None:
        self._body = body(names, occupy, strict)
        self._timeout = timeout_seconds
        self._held: List[Question] = []  # a block may be entered again inside itself

    def _ask(self) -> Question:
        question: Question = client.current_line().ask("concurrency", self._body)
        return question

    def __enter__(self) -> None:
        question = self._ask()
        with _said(self._body, self._timeout):
            client.wait(question, self._timeout)
        self._held.append(question)

    def __exit__(self, *exc: object) -> None:
        self._held.pop().release()

    async def __aenter__(self) -> None:
        question = self._ask()
        with _said(self._body, self._timeout):
            await client.wait_later(question, self._timeout)
        self._held.append(question)

    async def __aexit__(self, *exc: object) -> None:
        self._held.pop().release()


def rate_limit(names: Names, occupy: int = 1, timeout_seconds: Optional[float] = None, strict: bool = False) -> Any:
    """Wait until ``occupy`` slots of each limit in ``names`` are free; they come back by themselves, at the limit's
    rate. In asynchronous code an awaitable. Raises as ``concurrency`` does."""
    wanted = body(names, occupy, strict)
    return (
        rate_limited_later(wanted, timeout_seconds) if client.in_coroutine() else rate_limited(wanted, timeout_seconds)
    )


def rate_limited(body: Body, timeout_seconds: Optional[float]) -> None:
    with _said(body, timeout_seconds):
        client.wait(client.current_line().ask("rate_limit", body), timeout_seconds)


async def rate_limited_later(body: Body, timeout_seconds: Optional[float]) -> None:
    with _said(body, timeout_seconds):
        await client.wait_later(client.current_line().ask("rate_limit", body), timeout_seconds)


class _said:
    """Errors of a wait for slots, in the words and types of limits."""

    def __init__(self, body: Body, timeout: Optional[float]) -> None:
        self._names, self._timeout = ", ".join(map(repr, body["names"])), timeout

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if type(error) is TimeoutError:
            sentence = "no free slot of %s within %g s" % (self._names, self._timeout or 0)
            raise AcquireConcurrencySlotTimeoutError(sentence) from None
        if type(error) is Unanswered:
            raise ConcurrencySlotAcquisitionError(str(error)) from None


def body(names: Names, occupy: int, strict: bool) -> Dict[str, Any]:
    listed = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if len(listed) > MAX_LIMITS_AT_ONCE or not all(isinstance(name, str) and 0 < len(name) <= 200 for name in listed):
        raise ValueError(
            "names of limits are up to %d strings of 1 to 200 characters, not %s" % (MAX_LIMITS_AT_ONCE, preview(names))
        )
    if isinstance(occupy, bool) or not isinstance(occupy, int) or not 1 <= occupy <= MAX_SLOTS:
        raise ValueError("occupy is a whole number of slots, 1 or more, not %r" % (occupy,))
    return {"names": listed, "occupy": occupy, "strict": bool(strict)}
