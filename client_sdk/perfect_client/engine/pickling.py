"""Pickle what another machine is to call: tasks of the program's own file go along by value. Needs ``cloudpickle``."""

from __future__ import annotations

import io
from typing import Any, Dict, Tuple

from perfect_client.engine.decorated import Decorated


def dumps(value: Any) -> bytes:
    """For ``pickle.loads``. What stands in ``__main__``, or in a module registered with ``cloudpickle``, goes along."""
    import cloudpickle  # heavy: it comes with Dask

    by_value = {"__main__", *cloudpickle.list_registry_pickle_by_value()}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, Decorated) and getattr(obj, "__module__", "") in by_value:
                return _blank, (type(obj),), (obj._decorates, obj._given), None, None, _fill
            return super().reducer_override(obj)

    out = io.BytesIO()
    Pickler(out).dump(value)
    return out.getvalue()


def _blank(kind: Any) -> Any:
    return kind.__new__(kind)


def _fill(made: Any, state: Tuple[Any, Dict[str, Any]]) -> None:
    """Known before it is filled: the function's own globals may name the task."""
    made.__init__(state[0], **state[1])
