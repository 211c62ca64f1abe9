"""Every message that crosses the wire: its fields, its JSON, its version.

Facts are past tense (``TaskStarted``), orders are imperative (``StartRun``). Laws of change: fields are only ever
added and always have a default; unknown fields are ignored; a message of an unknown type decodes to ``Unknown`` and
is no error. Times are seconds since the epoch (float, the sender's clock), durations say their unit in their name.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union

VERSION = 1
FACTS, OUTPUT = "facts", "output"
STREAMS = (FACTS, OUTPUT)

MAX_FRAME_BYTES = 1 << 20  # Daphne resets the connection above 1 MiB without a close code
MAX_BATCH_BYTES = 512 * 1024
MAX_BATCH_FACTS = 500
MAX_LINE_BYTES = 16 * 1024
MAX_PART_BYTES = 96 * 1024  # JSON may double what it escapes, and a spool's record has 256 KiB at most
MAX_PARAMETERS_BYTES = 256 * 1024
MAX_VARIABLE_BYTES = 64 * 1024
MAX_LIMITS_AT_ONCE = 20  # names in one question for slots
MAX_SLOTS = 1_000_000
MAX_DEPTH = 64
MAX_NAME = 200
_LARGEST = sys.float_info.max
_CUT_BYTES = 32  # room for "… (n bytes more)": cut text is within its limit, so that cutting it again changes nothing

# Close codes of the worker socket. Those in GO_AWAY mean that coming back will not help.
RESTARTING, OVERLOADED, MALFORMED = 4012, 4013, 4400
UNAUTHORISED, FORBIDDEN, NO_ROUTE, REPLACED, TOO_OLD = 4401, 4403, 4404, 4409, 4426
GO_AWAY = frozenset({UNAUTHORISED, FORBIDDEN, REPLACED, TOO_OLD})


class ProtocolError(ValueError):
    """A message that breaks the rules; the text names the message, the field and what would be right."""


# --------------------------------------------------------------------------------------------------------- cleaning


def clean_text(value: object, limit: int = MAX_LINE_BYTES) -> str:
    """Text that every database and every page can carry, at most ``limit`` (≥ 64) bytes of UTF-8; clean text stays.

    NUL becomes U+2400 (PostgreSQL refuses NUL, SQLite's LIKE stops at it); a lone surrogate becomes its escape.
    What is cut is said: the text then ends in ``… (n bytes more)``.
    """
    text = value if isinstance(value, str) else str(value)
    if "\x00" in text:
        text = text.replace("\x00", "\u2400")
    if len(text) * 4 <= limit and text.isascii():
        return text
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= limit:
        return raw.decode("utf-8")
    kept = raw[: limit - _CUT_BYTES].decode("utf-8", "ignore")
    return kept + "… (%d bytes more)" % (len(raw) - len(kept.encode("utf-8")))


def clean_json(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The value as JSON that every database accepts.

    NaN and infinities become ``{"$float": "NaN"}``: one of them fails a whole insert on SQLite. Raises
    ``ProtocolError`` for what JSON has no word for and for nesting deeper than ``depth``.
    """
    if depth < 0:
        raise ProtocolError("the value is nested deeper than %d levels" % MAX_DEPTH)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return clean_text(value, MAX_FRAME_BYTES)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, Mapping):
        return {clean_text(k, MAX_NAME * 4): clean_json(v, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(v, depth - 1) for v in value]
    raise ProtocolError("a value of type %s cannot be written as JSON" % type(value).__name__)


def dumps(value: Any) -> str:
    """Compact JSON; raises ``ValueError`` on NaN rather than write what other parsers refuse."""
    return _encode(value)


# Made once: ``json.dumps`` with arguments makes an encoder for each call, a fifth of the time that a fact takes.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


# ------------------------------------------------------------------------------------------------------------ nouns


@dataclass(frozen=True)
class TaskSpec:
    """A task found in a flow's code. ``key`` is its name in the code and unique in the flow."""

    key: str
    name: str
    weight: Optional[float] = None
    estimated_ms: Optional[float] = None
    in_loop: bool = False
    description: str = ""


@dataclass(frozen=True)
class ScheduleSpec:
    """A schedule declared in code; ``kind`` is ``cron`` or ``interval`` (``expression`` is then seconds)."""

    kind: str
    expression: str
    timezone: str = "UTC"
    name: str = "default"
    configuration: str = ""
    parameters: Dict[str, Any] = field(default_factory=dict)
    catch_up: str = "latest"
    overlap: str = "skip"


@dataclass(frozen=True)
class FlowSpec:
    """A flow as its worker describes it; ``parameters`` is a JSON Schema of type object, in the signature's order.

    ``start`` says how the processes of its runs begin: ``fork`` or ``fresh``; ``start_reason`` why not by a fork, in
    a sentence. ``problem`` says why the newest code of its file is not used. ``notes`` are remarks about its code.
    ``source_time`` is when its file was last changed, in seconds since 1970.
    """

    name: str
    description: str = ""
    tags: List[str] = field(default_factory=list)
    parameters: Dict[str, Any] = field(default_factory=dict)
    configurations: Dict[str, Any] = field(default_factory=dict)
    schedules: List[ScheduleSpec] = field(default_factory=list)
    tasks: List[TaskSpec] = field(default_factory=list)
    file: str = ""
    line: int = 0
    fingerprint: str = ""
    start: str = ""
    start_reason: str = ""
    problem: str = ""
    notes: List[str] = field(default_factory=list)
    source_time: Optional[float] = None


@dataclass(frozen=True)
class Held:
    """An attempt whose journal or spool a worker still has, with the number of its last record in each stream."""

    fence: int
    run: str
    facts: int = 0
    output: int = 0
    started: bool = False


@dataclass(frozen=True)
class Verdict:
    """The server's word on a held attempt: ``current`` (with what it has), ``stale`` or ``unknown``."""

    fence: int
    verdict: str
    facts: int = 0
    output: int = 0
    cancel: bool = False


@dataclass(frozen=True)
class Ancestor:
    """An earlier run whose results a run may use; ``before`` > 0: only of its task runs with a smaller number."""

    run: str
    before: int = 0


# ------------------------------------------------------------------------------------------- from the worker: facts


@dataclass(frozen=True)
class Joined:
    """``draining``: this process takes nothing new. ``older`` are the boots of processes of this worker that drain
    beside this one, and ``beside`` the fences of the attempts that they hold. ``dead`` are the boots of processes of
    this worker that are surely gone, though their connections may still look alive.
    """

    worker: str
    boot: str
    protocol: int = VERSION
    name: str = ""
    host: str = ""
    pid: int = 0
    python: str = ""
    sdk: str = ""
    slots: int = 1
    pools: List[str] = field(default_factory=list)
    held: List[Held] = field(default_factory=list)
    draining: bool = False
    older: List[str] = field(default_factory=list)
    beside: List[int] = field(default_factory=list)
    dead: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class FlowsAnnounced:
    """All flows of the worker, each time all; ``problems`` are sentences about files that did not load."""

    flows: List[FlowSpec]
    problems: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class SlotsFreed:
    """How many more runs the worker would take now."""

    free: int


@dataclass(frozen=True)
class Draining:
    """This process takes nothing new and waits for the attempts ``running`` to end; told again when they change.

    A newer process of the same worker may join beside it.
    """

    running: List[int] = field(default_factory=list)


@dataclass(frozen=True)
class OfferClaimed:
    fence: int
    run: str


@dataclass(frozen=True)
class OfferDeclined:
    fence: int
    run: str
    reason: str = ""


@dataclass(frozen=True)
class FactsRecorded:
    """Records ``first``, ``first + 1``, … of one stream of one attempt."""

    fence: int
    run: str
    first: int
    facts: List[Any]
    stream: str = FACTS


@dataclass(frozen=True)
class Beaten:
    """The worker's heartbeat, every ``heartbeat_s`` seconds; answered by ``Echo``."""

    running: List[Any] = field(default_factory=list)
    time: float = 0.0


@dataclass(frozen=True)
class Left:
    """The worker stops on purpose and holds no started run."""

    reason: str = ""


# ---------------------------------------------------------------------------------------- from the server: orders


@dataclass(frozen=True)
class Accept:
    """``draining``: this server lets a newer process of the worker join while this one drains."""

    server_time: float
    attempts: List[Verdict] = field(default_factory=list)
    heartbeat_s: float = 10.0
    silence_s: float = 30.0
    max_batch_bytes: int = MAX_BATCH_BYTES
    max_batch_facts: int = MAX_BATCH_FACTS
    max_in_flight: int = 4
    draining: bool = False


@dataclass(frozen=True)
class Refuse:
    reason: str
    code: int = FORBIDDEN


@dataclass(frozen=True)
class FlowsRefused:
    """What the server could not take of the flows just announced: a sentence each, for the worker's terminal."""

    problems: List[str]


@dataclass(frozen=True)
class OfferRun:
    fence: int
    run: str
    flow: str
    parameters: Dict[str, Any] = field(default_factory=dict)
    configuration: str = ""
    tags: List[str] = field(default_factory=list)
    attempt: int = 1
    trigger: str = ""
    scheduled_for: Optional[float] = None
    lineage: List[Ancestor] = field(default_factory=list)  # what it resumes, nearest first


@dataclass(frozen=True)
class StartRun:
    """The claim is committed: start the code. Without this order no user code runs."""

    fence: int


@dataclass(frozen=True)
class DropRun:
    """The attempt is not (or no longer) the worker's: end its process if any, forget its spool."""

    fence: int
    reason: str = ""


@dataclass(frozen=True)
class CancelRun:
    fence: int
    reason: str = ""
    grace_s: float = 10.0


@dataclass(frozen=True)
class HoldRun:
    """``on``: the run's processes stop where they are; else they go on. Told again, it changes nothing."""

    fence: int
    on: bool = True


@dataclass(frozen=True)
class Answer:
    """What became of a run's question ``ask``: ``body`` is what was asked for, or ``{"error": sentence}``.

    May come more than once, since the server cannot know whether it arrived.
    """

    fence: int
    ask: int
    body: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Acknowledge:
    """Records up to ``upto`` are on disk."""

    fence: int
    upto: int
    stream: str = FACTS


@dataclass(frozen=True)
class Resend:
    """There is a gap: send again from record ``first``."""

    fence: int
    first: int
    stream: str = FACTS


@dataclass(frozen=True)
class Echo:
    server_time: float = 0.0


# --------------------------------------------------------------------------------- facts inside a run's spool file


@dataclass(frozen=True)
class RunStarted:
    time: float
    pid: int = 0


def _set(fact: Any, **values: Any) -> None:
    """Set all at once: a frozen dataclass does it field by field, in twice the time, and no facts are made more often.

    A field that is left out has its default, here and on the wire, where it then takes no room either.
    """
    fact.__dict__.update(values)


@dataclass(frozen=True)
class TaskStarted:
    """``task`` numbers the task runs of an attempt from 1; ``call`` counts the calls of one key from 0.

    ``kind`` is ``flow`` for a flow that was called inside the run, else ``task``. Not ``crucial``: it may fail.
    """

    time: float
    task: int
    key: str
    name: str = ""
    call: int = 0
    parent: Optional[int] = None
    weight: Optional[float] = None
    estimated_ms: Optional[float] = None
    kind: str = "task"
    crucial: bool = True

    def __init__(
        self,
        time: float,
        task: int,
        key: str,
        name: str = "",
        call: int = 0,
        parent: Optional[int] = None,
        weight: Optional[float] = None,
        estimated_ms: Optional[float] = None,
        kind: str = "task",
        crucial: bool = True,
    ) -> None:
        _set(
            self,
            time=time,
            task=task,
            key=key,
            name=name,
            call=call,
            parent=parent,
            weight=weight,
            estimated_ms=estimated_ms,
            kind=kind,
        )
        if not crucial:
            _set(self, crucial=False)


@dataclass(frozen=True)
class TaskRetrying:
    """Attempt ``tries`` (from 1) at a task failed; the next begins in ``delay_s``."""

    time: float
    task: int
    tries: int = 1
    delay_s: float = 0.0
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class TaskRestarted:
    """Attempt ``tries`` (from 2) at a task begins."""

    time: float
    task: int
    tries: int = 2


@dataclass(frozen=True)
class TaskProgressed:
    """``share`` is 0–1 of the task's work."""

    time: float
    task: int
    share: float
    text: str = ""


@dataclass(frozen=True)
class TaskEnded:
    """``outcome`` is a final task state: COMPLETED, FAILED, CANCELLED, CACHED, SKIPPED or CRASHED.

    The end of a sub-flow's call is the end of its run. ``result`` is a bounded preview; ``state`` the name that code
    gave to the state, if it gave one, and ``message`` what it said with it.
    """

    time: float
    task: int
    outcome: str
    error: str = ""
    traceback: str = ""
    result: str = ""
    state: str = ""
    message: str = ""

    def __init__(
        self,
        time: float,
        task: int,
        outcome: str,
        error: str = "",
        traceback: str = "",
        result: str = "",
        state: str = "",
        message: str = "",
    ) -> None:
        _set(self, time=time, task=task, outcome=outcome, error=error, traceback=traceback)
        if result or state or message:
            _set(self, result=result, state=state, message=message)


@dataclass(frozen=True)
class SubRunStarted:
    """The flow that task run ``task`` is a call of begins: a run of its own, which ends with that task run.

    ``run`` is a UUIDv7. What starts below the task run belongs to this run. ``parameters`` are bounded: what is large,
    or no JSON value, is a preview.
    """

    time: float
    run: str
    task: int
    flow: str
    parameters: Dict[str, Any] = field(default_factory=dict)
    tags: List[str] = field(default_factory=list)
    configuration: str = ""
    name: str = ""


@dataclass(frozen=True)
class RunNamed:
    """The run has got the name that its flow's ``flow_run_name`` makes."""

    time: float
    name: str


@dataclass(frozen=True)
class Logged:
    """``level`` as in ``logging`` (20 = INFO). ``dropped`` > 0: this many lines were not kept, in this one's place."""

    time: float
    message: str
    level: int = 20
    task: Optional[int] = None
    dropped: int = 0


@dataclass(frozen=True)
class Asked:
    """The code waits for an answer of the server. ``ask`` numbers an attempt's questions from 1; they may come out of
    order. Every question up to ``heard`` has its answer, which need not be sent again.
    """

    time: float
    ask: int
    kind: str
    body: Dict[str, Any] = field(default_factory=dict)
    task: Optional[int] = None
    heard: int = 0


@dataclass(frozen=True)
class Released:
    """The code waits no more for question ``ask``, or gives back what it was granted."""

    time: float
    ask: int
    reason: str = ""


@dataclass(frozen=True)
class ArtifactWritten:
    """A part of what an artifact shows: ``part`` of ``parts``, from 1. Part 1 begins the artifact, or begins it anew.

    ``artifact`` is its id, a UUID. ``data`` is text (JSON for a link or table), ``coded`` is base64; one of them is
    empty. An empty ``description`` leaves the one that is there.
    """

    time: float
    artifact: str
    kind: str
    key: str = ""
    description: str = ""
    data: str = ""
    coded: str = ""
    task: Optional[int] = None
    part: int = 1
    parts: int = 1


@dataclass(frozen=True)
class RunEnded:
    """The explicit outcome without which nothing counts as success: COMPLETED, FAILED or CANCELLED.

    ``by_code``: the flow came to this outcome by itself; it was not stopped. ``state`` is the name that code gave to
    the state, if it gave one.
    """

    time: float
    outcome: str
    reason: str = ""
    error: str = ""
    traceback: str = ""
    result: str = ""
    by_code: bool = False
    state: str = ""


@dataclass(frozen=True)
class ProcessExited:
    """Written by the supervisor when the process is gone without ``RunEnded``; ``reason`` is one sentence.

    ``timed_out``: it was ended because it ran longer than the code allowed, so the run has failed and not crashed.
    """

    time: float
    reason: str
    code: Optional[int] = None
    signal: Optional[int] = None
    cancelled: bool = False
    last_output: str = ""
    timed_out: bool = False


@dataclass(frozen=True)
class LineOpen:
    """A line that has begun and not ended, as far as it is now; the fields are those of ``Logged``."""

    time: float
    message: str
    level: int = 20
    task: Optional[int] = None


@dataclass(frozen=True)
class LinesOpen:
    """What a run has written without an end so far: all of it, in place of what was said before.

    It is shown and not recorded: a line is a fact once it has ended, or its process has.
    """

    fence: int
    run: str
    lines: List[LineOpen] = field(default_factory=list)


@dataclass(frozen=True)
class Unknown:
    """A message of a type that this version does not know."""

    type: str


Message = Any
M = TypeVar("M")

_FROM_WORKER: Tuple[type, ...] = (
    Joined,
    FlowsAnnounced,
    SlotsFreed,
    Draining,
    OfferClaimed,
    OfferDeclined,
    FactsRecorded,
    Beaten,
    LinesOpen,
    Left,
)
_FROM_SERVER: Tuple[type, ...] = (
    Accept,
    Refuse,
    FlowsRefused,
    OfferRun,
    StartRun,
    DropRun,
    CancelRun,
    HoldRun,
    Answer,
    Acknowledge,
    Resend,
    Echo,
)
_IN_SPOOL: Tuple[type, ...] = (
    RunStarted,
    TaskStarted,
    TaskRetrying,
    TaskRestarted,
    TaskProgressed,
    TaskEnded,
    SubRunStarted,
    RunNamed,
    Logged,
    ArtifactWritten,
    Asked,
    Released,
    RunEnded,
    ProcessExited,
)
TYPES: Dict[str, type] = {cls.__name__: cls for cls in _FROM_WORKER + _FROM_SERVER + _IN_SPOOL}


# ------------------------------------------------------------------------------------------------ encode and decode


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return clean_text(value, MAX_FRAME_BYTES)


def _integer(value: Any) -> int:
    if type(value) is not int or not -(2**53) <= value <= 2**53:
        raise TypeError("a whole number")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not -_LARGEST <= value <= _LARGEST:  # no overflow for huge integers
        raise TypeError("a finite number")
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("true or false")
    return value


def _texts(value: Any) -> List[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("a list of strings")
    return [clean_text(item, MAX_FRAME_BYTES) for item in value]


def _integers(value: Any) -> List[int]:
    if not isinstance(value, list):
        raise TypeError("a list of whole numbers")
    return [_integer(item) for item in value]


def _anything(value: Any) -> List[Any]:
    if not isinstance(value, list):
        raise TypeError("a list")
    return value


def _object(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    try:
        cleaned: Dict[str, Any] = clean_json(value)
    except ProtocolError as wrong:
        raise TypeError("an object that can be kept: %s" % wrong) from None
    return cleaned


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _list_of(cls: type) -> Callable[[Any], Any]:
    return lambda value: [from_dict(cls, item) for item in _anything(value)]


_READERS: Dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "bool": _flag,
    "List[str]": _texts,
    "List[int]": _integers,
    "List[Any]": _anything,
    "Dict[str, Any]": _object,
    "Optional[int]": _optional(_integer),
    "Optional[float]": _optional(_number),
    "List[TaskSpec]": _list_of(TaskSpec),
    "List[ScheduleSpec]": _list_of(ScheduleSpec),
    "List[FlowSpec]": _list_of(FlowSpec),
    "List[Held]": _list_of(Held),
    "List[Verdict]": _list_of(Verdict),
    "List[Ancestor]": _list_of(Ancestor),
    "List[LineOpen]": _list_of(LineOpen),
}

# Per class: (field, reader, required). Annotations are texts here, which makes them the keys of _READERS.
_FIELDS: Dict[type, List[Tuple[str, Callable[[Any], Any], bool]]] = {
    cls: [(f.name, _READERS[str(f.type)], f.default is MISSING and f.default_factory is MISSING) for f in fields(cls)]
    for cls in (*TYPES.values(), TaskSpec, ScheduleSpec, FlowSpec, Held, Verdict, Ancestor, LineOpen)
}


def from_dict(cls: Type[M], data: Any) -> M:
    """Build ``cls`` from decoded JSON. Raises ``ProtocolError`` that names the field."""
    if not isinstance(data, dict):
        raise ProtocolError("%s must be an object" % cls.__name__)
    values = {}
    for name, read, required in _FIELDS[cls]:
        if name in data:
            try:
                values[name] = read(data[name])
            except TypeError as wrong:
                raise ProtocolError("%s.%s must be %s" % (cls.__name__, name, wrong)) from None
        elif required:
            raise ProtocolError("%s.%s is missing" % (cls.__name__, name))
    return cls(**values)


def to_dict(message: Any) -> Dict[str, Any]:
    """The message's fields as JSON values, nested messages too; ``type`` is added by ``encode`` and ``encode_fact``."""
    return {
        name: [to_dict(item) for item in value]
        if isinstance(value, list) and value and type(value[0]) in _FIELDS
        else value
        for name, value in message.__dict__.items()
    }


def encode(message: Message) -> str:
    """One message as JSON text."""
    return dumps({"type": type(message).__name__, **to_dict(message)})


def encode_fact(fact: Message) -> bytes:
    """One fact as it stands in a spool file and, unchanged, inside ``FactsRecorded``."""
    return dumps({"type": type(fact).__name__, **fact.__dict__}).encode("utf-8", "backslashreplace")


def split_artifact(fact: ArtifactWritten) -> List[ArtifactWritten]:
    """The same in facts of at most ``MAX_PART_BYTES`` of content each: one if it is short, as nearly all are."""
    pieces = _cut(fact.coded or fact.data)
    if len(pieces) <= 1:
        return [fact]
    parts = []
    for number, piece in enumerate(pieces, 1):
        data, coded = ("", piece) if fact.coded else (piece, "")
        words = fact.description if number == 1 else ""
        parts.append(replace(fact, data=data, coded=coded, description=words, part=number, parts=len(pieces)))
    return parts


def _cut(text: str) -> List[str]:
    """Pieces of at most ``MAX_PART_BYTES`` of UTF-8, cut between characters."""
    if len(text) * 4 <= MAX_PART_BYTES:
        return [text]
    raw = text.encode("utf-8", "backslashreplace")
    pieces, at = [], 0
    while at < len(raw):
        end = min(at + MAX_PART_BYTES, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # within a character (RFC 3629 §3)
            end -= 1
        pieces.append(raw[at:end].decode("utf-8"))
        at = end
    return pieces


def encode_batch(fence: int, run: str, stream: str, first: int, records: Sequence[bytes]) -> bytes:
    """``FactsRecorded`` around records that are JSON already: the hot path never parses what it only carries."""
    head = dumps({"type": "FactsRecorded", "fence": fence, "run": run, "stream": stream, "first": first})
    return head[:-1].encode() + b',"facts":[' + b",".join(records) + b"]}"


def _loads(text: Union[str, bytes]) -> Dict[str, Any]:
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as wrong:
        raise ProtocolError("the frame is not JSON: %s" % str(wrong)[:200]) from None
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ProtocolError("the frame must be a JSON object with a string field 'type'")
    return data


def _refuse_constant(name: str) -> float:
    raise ProtocolError("%s is not JSON" % name)


def decode(text: Union[str, bytes]) -> Message:
    """The message in a frame. Raises ``ProtocolError``; an unknown type is ``Unknown``."""
    return decode_fact(_loads(text))


def decode_fact(data: Any) -> Message:
    """One fact (or message) from decoded JSON. Raises ``ProtocolError``; an unknown type is ``Unknown``."""
    kind = data.get("type") if isinstance(data, dict) else None
    if not isinstance(kind, str):
        raise ProtocolError("a fact must be an object with a string field 'type'")
    cls = TYPES.get(kind)
    return Unknown(clean_text(kind, MAX_NAME)) if cls is None else from_dict(cls, data)
