"""What a flow or task does besides its function, whenever its state changes: hooks, and names made from parameters."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, Optional, Sequence

from perfect_client.core.run_logger import get_run_logger
from perfect_client.core.states import State, StateType
from perfect_client.engine.steps import Invoke, Steps
from perfect_client.errors import MAX_NAME
from perfect_client.wire.messages import clean_text

EVENTS: Dict[StateType, str] = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.CANCELLED: "on_cancellation",
    StateType.CRASHED: "on_crashed",
}

witness: Optional[Any] = None  # in a worker's run: the ``last_hooks.Witness`` of this process


def hooks_for(owner: Any, state: State) -> Sequence[Any]:
    """The hooks that hear of a state."""
    hooks: Dict[str, List[Any]] = owner.hooks
    return hooks.get(EVENTS.get(state.type, ""), ()) if hooks else ()


def run_hooks(owner: Any, run: Any, state: State) -> Steps[None]:
    """Call the hooks that hear of this state; one that raises is logged and harms nothing."""
    run.state = state
    called = hooks_for(owner, state)
    if called and witness is not None and owner.kind == "flow" and state.is_final():
        witness.begins(run.id, state)
    for hook in called:
        try:
            yield Invoke(hook, owner, run, state)
        except Exception:
            name = getattr(hook, "__name__", repr(hook))
            get_run_logger().error("Hook %r of %s %r failed", name, owner.kind, owner.name, exc_info=sys.exc_info())


def name_from(template: Any, parameters: Any) -> str:
    """A run's name by ``task_run_name`` or ``flow_run_name``: a format of the parameters, or a function.

    ``parameters`` is a function, since most templates need none. Raises whatever the template raises.
    """
    if callable(template):
        code = getattr(template, "__code__", None)
        wants = code is not None and code.co_argcount > len(getattr(template, "__defaults__", None) or ())
        if hasattr(template, "__self__"):
            wants = code is not None and code.co_argcount > 1
        made = template(parameters()) if wants else template()
    else:
        made = template.format(**parameters())
    if not isinstance(made, str):
        raise TypeError("a run's name must be a string, not %r" % (made,))
    name = clean_text(" ".join(made.split()))
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "\u2026"
