"""``progress(0.4, "text")`` and ``progress.track(items)``: how much of a task is done."""

from __future__ import annotations

import operator
from typing import Iterable, Iterator, Optional, TypeVar

from perfect_client.core import context

Item = TypeVar("Item")


class Progress:
    """Callable: ``progress(share, text)``. Outside a task and outside a run it does nothing."""

    def __call__(self, share: float, text: str = "") -> None:
        """``share`` is 0–1 of the current task's work. Raises ``ValueError`` for anything else."""
        try:
            number = float(share)
        except (TypeError, ValueError):
            raise ValueError("progress() takes a share between 0 and 1, not %.100r" % (share,)) from None
        if not 0.0 <= number <= 1.0:  # also refuses NaN
            number = _nearly_fitting(number)
        task = context.current_task()
        if task is not None and not task.run.closed:
            task.report(number, text)

    def track(self, items: Iterable[Item], total: Optional[int] = None, description: str = "") -> Iterator[Item]:
        """Iterate over ``items`` and report after each. ``total`` is needed where ``len(items)`` does not work."""
        if total is None:
            total = operator.length_hint(items)
        if isinstance(total, bool) or not isinstance(total, int) or total < 0:
            raise ValueError("progress.track() takes a total that is a whole number, 0 or more, not %r" % (total,))
        return self._track(iter(items), total, description)

    def _track(self, items: Iterator[Item], total: int, description: str) -> Iterator[Item]:
        lead = description + " " if description else ""
        for number, item in enumerate(items, 1):
            yield item
            if total:
                self(min(1.0, number / total), "%s%d/%d" % (lead, number, total))

    def __repr__(self) -> str:
        return "perfect_client.progress"


def _nearly_fitting(number: float) -> float:
    if -1e-9 <= number <= 1 + 1e-9:  # what is left over by adding up fractions
        return min(1.0, max(0.0, number))
    hint = ": did you mean %s?" % (number / 100) if 1 < number <= 100 else ""
    raise ValueError("progress() takes a share between 0 and 1, not %s%s" % (number, hint))


progress = Progress()
