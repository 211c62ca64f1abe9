"""What an exception and a result look like in a fact: bounded, clean, and safe from what their own methods do."""

from __future__ import annotations

import pickle
import reprlib
import traceback
from itertools import islice
from typing import Any, Callable, List, Optional, Set, Tuple

from perfect_client.errors import PACKAGE
from perfect_client.wire.messages import clean_text

MAX_ERROR_BYTES = 2 * 1024
MAX_TRACEBACK_BYTES = 16 * 1024
MAX_RESULT_CHARACTERS = 500


def error_text(error: BaseException) -> str:
    """``ValueError: the message``, at most 2 KiB; a sentence for ``sys.exit()``."""
    if isinstance(error, SystemExit):
        return "SystemExit: the code called sys.exit(%s)" % ("" if error.code is None else preview(error.code))
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = "%s.%s" % (type(error).__module__, name) if name in ("Error", "error", "Exception") else name
    message = _message(error)
    return clean_text("%s: %s" % (name, message) if message else name, MAX_ERROR_BYTES)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "<its message cannot be shown>"


def is_interruption(error: BaseException) -> bool:
    """Whether the code was stopped from outside rather than failed: Ctrl-C, a cancel, asyncio's cancellation."""
    return isinstance(error, (KeyboardInterrupt, GeneratorExit)) or (
        type(error).__name__ == "CancelledError" and not isinstance(error, Exception)  # asyncio's, without importing it
    )


def is_clean_exit(error: BaseException) -> bool:
    """Whether it is ``sys.exit()`` or ``sys.exit(0)``, by which code ends well: as a return would."""
    return isinstance(error, SystemExit) and (error.code is None or (isinstance(error.code, int) and error.code == 0))


def traceback_text(error: BaseException) -> str:
    """The traceback without Perfect's own frames, at most 16 KiB; of a longer one the middle is left out."""
    try:
        told = traceback.TracebackException.from_exception(error)
        _drop_own_frames(told, error, set())
        text = "".join(told.format())
    except BaseException as wrong:  # an exception class may do anything when it is looked at
        text = "The traceback cannot be shown (%s)." % type(wrong).__name__
    return shorten(text, MAX_TRACEBACK_BYTES)


def shorten(text: str, limit: int) -> str:
    """Clean text of at most ``limit`` bytes; of a longer one the middle is left out."""
    raw = clean_text(text, len(text) * 4 + 4).encode("utf-8")
    if len(raw) <= limit:
        return raw.decode("utf-8")
    half = limit // 2 - 32
    gap = "\n… (%d bytes left out) …\n" % (len(raw) - 2 * half)
    return raw[:half].decode("utf-8", "ignore") + gap + raw[-half:].decode("utf-8", "ignore")


class Elsewhere(Exception):
    """The traceback of an error in another process; the cause of the same error where it is raised again."""

    def __str__(self) -> str:
        return "\n\n%s" % self.args[0]


def rebuild_error(error: BaseException, traceback: str) -> BaseException:
    """An error of another process, to be raised here, with its traceback over there."""
    if traceback:
        error.__cause__ = Elsewhere(traceback)
    return error


def unpickled_error(error: BaseException, dumps: Callable[[Any], bytes] = pickle.dumps) -> Any:
    """What arrives by ``pickle`` as this error: itself if it survives, else one with its type, text and attributes.

    Where the type cannot be had over there, or makes another text of what arrives, a class of the same name stands in.
    """
    try:
        again = pickle.loads(dumps(error))
        if type(again) is type(error) and str(again) == str(error):
            return error
    except BaseException:  # constructors of errors may do anything
        pass
    return _Packed(error, dumps)


class _Packed:
    """Pickles as a call of ``_rebuilt``."""

    def __init__(self, error: BaseException, dumps: Callable[[Any], bytes]) -> None:
        kind = type(error)
        known = kind if _survives(kind, dumps) else None
        args = tuple(arg if _survives(arg, dumps) else preview(arg) for arg in error.args)
        state = {name: value for name, value in vars(error).items() if _survives(value, dumps)}
        base = next(parent for parent in kind.__mro__ if parent.__module__ == "builtins")
        self._parts = (known, base, kind.__module__, kind.__qualname__, _message(error), args, state)

    def __reduce__(self) -> Any:
        return _rebuilt, self._parts


def _survives(value: Any, dumps: Callable[[Any], bytes]) -> bool:
    try:
        pickle.loads(dumps(value))
    except BaseException:
        return False
    return True


def _rebuilt(kind: Any, base: Any, module: str, name: str, text: str, args: Tuple[Any, ...], state: Any) -> Any:
    """The error of another process, made without its constructor."""
    try:
        made = kind.__new__(kind)
        made.args = args
        made.__dict__.update(state)
        if str(made) == text:
            return made
    except BaseException:  # the class is not known here, or will not be made so
        pass
    told = {"__module__": module, "__qualname__": name, "__str__": lambda self: text}
    for parent in (base, Exception):
        try:
            made = type(name.rpartition(".")[2], (parent,), told)(text)
            made.__dict__.update(state)
            return made
        except Exception:  # some of Python's own classes want more than a string
            continue


def is_own_frame(frame: Any) -> bool:
    """Whether it is of Perfect's own code."""
    return bool(frame.f_code.co_filename.startswith(PACKAGE))


def hide_own_frames(error: Optional[BaseException], seen: Optional[Set[int]] = None) -> None:
    """Take Perfect's own frames out of the exception and of those it is linked to, but where it has no others."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    steps: List[Any] = []
    at = error.__traceback__
    while at is not None:
        steps.append(at)
        at = at.tb_next
    kept = [step for step in steps if not is_own_frame(step.tb_frame)]
    for step, following in zip(kept, [*kept[1:], None]):
        step.tb_next = following
    if kept or isinstance(error.__cause__, Elsewhere):
        error.__traceback__ = kept[0] if kept else None
    for linked in (error.__cause__, error.__context__, *(getattr(error, "exceptions", None) or ())):
        hide_own_frames(linked, seen)


def _drop_own_frames(told: Any, error: Any, seen: Set[int]) -> None:
    """``told`` is what Python's ``traceback`` makes of ``error``."""
    if told is None or error is None or id(told) in seen:
        return
    seen.add(id(told))
    kept = [frame for frame in told.stack if not frame.filename.startswith(PACKAGE)]
    if kept or isinstance(error.__cause__, Elsewhere):
        told.stack[:] = kept
    for name in ("__cause__", "__context__"):
        _drop_own_frames(getattr(told, name), getattr(error, name), seen)
    for pair in zip(getattr(told, "exceptions", None) or (), getattr(error, "exceptions", ())):
        _drop_own_frames(*pair, seen)


class _Preview(reprlib.Repr):
    """``repr`` that never walks through a large container and never fails."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 5
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = 50
        self.maxdict = 50
        self.maxstring = self.maxother = MAX_RESULT_CHARACTERS
        self.maxlong = 200

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value) if len(value) <= 200 else "%r… (%d bytes)" % (value[:200], len(value))

    repr_bytearray = repr_bytes

    def repr_dict(self, x: Any, level: int) -> str:
        """``reprlib`` sorts all keys before it takes the first."""
        if len(x) <= self.maxdict:
            return super().repr_dict(x, level)
        return super().repr_dict(dict(islice(x.items(), self.maxdict)), level)[:-1] + ", ...}"

    def repr_set(self, x: Any, level: int) -> str:
        if len(x) <= self.maxset:
            return super().repr_set(x, level)
        return super().repr_set(set(islice(x, self.maxset)), level)[:-1] + ", ...}"

    def repr_frozenset(self, x: Any, level: int) -> str:
        return "frozenset(%s)" % self.repr_set(x, level) if x else "frozenset()"

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 4_096 else "<int of %d bits>" % x.bit_length()

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            return repr(x)
        except Exception:
            return "<%s>" % type(x).__qualname__


class _SafePreview(_Preview):
    """The same, without asking an object of an unknown class: what it does is not known, and may take long."""

    def repr_instance(self, x: Any, level: int) -> str:
        module, name = type(x).__module__, type(x).__qualname__
        return super().repr_instance(x, level) if module.partition(".")[0] in _QUICK else "<%s.%s>" % (module, name)


_QUICK = frozenset({"builtins", "datetime", "decimal", "fractions", "pathlib", "uuid", "perfect_client"})
_PREVIEW, _SAFE_PREVIEW = _Preview(), _SafePreview()


def safe_preview(value: Any) -> str:
    """As ``preview``, for the many results of tasks: an object that is no plain value is told by its class."""
    if type(value) is bool or (type(value) is int and -1 << 60 < value < 1 << 60):
        return repr(value)
    return preview(value, _SAFE_PREVIEW)


def preview(value: Any, way: reprlib.Repr = _PREVIEW) -> str:
    """The value's ``repr``, at most 500 characters; what is cut is marked by ``…``."""
    try:
        text = way.repr(value)
    except Exception:
        text = "<%s>" % type(value).__qualname__
    text = clean_text(text, len(text) * 4 + 4)
    return text if len(text) <= MAX_RESULT_CHARACTERS else text[: MAX_RESULT_CHARACTERS - 1] + "…"
