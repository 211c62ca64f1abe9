"""However a file changes under a worker, the next run has its newest code that imports."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.worker.fakeserver import FakeServer
from tests.worker.kit import Worker

GOOD = "import helper\nfrom perfect_client import flow\n\n@flow\ndef answer():\n    return [%d, helper.VALUE]\n"
BROKEN = {
    "half of it": GOOD[:60] % (),
    "a syntax error": "def broken(:\n",
    "an error": GOOD % 0 + "1 / 0\n",
    "a module that is not there": "import no_such_module_at_all\n" + GOOD % 0,
    "no flow any more, by a name that is gone": "from helper import GONE\n" + GOOD % 0,
    "an exit": GOOD % 0 + "import sys\nsys.exit(3)\n",
    "the end of the process": GOOD % 0 + "import os\nos._exit(3)\n",
    "a signal": GOOD % 0 + "import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n",
    "bytes that are no text": "\x00\x00",
    "nothing but zeros, as after a power cut": "\x00" * 200,
}
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["main.py", "helper.py"]), st.integers(1, 99)),
        st.tuples(st.sampled_from(["main.py", "helper.py"]), st.sampled_from(sorted(BROKEN))),
    ),
    min_size=3,
    max_size=6,
)


def save(path: Path, text: str, whole: bool) -> None:
    """By a rename, or in place as some editors and ``rsync --inplace`` do."""
    if whole:
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        os.replace(str(fresh), str(path))
    else:
        path.write_text(text)


def text_of(name: str, content: object) -> str:
    if isinstance(content, int):
        return GOOD % content if name == "main.py" else "VALUE = %d\n" % content
    return BROKEN[str(content)]


@pytest.mark.parametrize("start", ["fork", "fresh"])
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@example(steps=[("helper.py", "a signal"), ("helper.py", 1)], whole=False)
@given(steps=steps, whole=st.booleans())
def test_the_newest_code_that_imports_runs(start, steps, whole):
    server = FakeServer()
    with tempfile.TemporaryDirectory() as folder:
        home, code = Path(folder), Path(folder) / "code"
        code.mkdir()
        good = {"main.py": 0, "helper.py": 0}
        for name in good:
            save(code / name, text_of(name, 0), whole)
        worker = Worker(home, server, [code / "main.py"], "--start", start)
        try:
            server.run("answer")
            imported = {"[0, 0]"}  # what the files came to, each time when both were good
            for name, content in steps:
                save(code / name, text_of(name, content), whole)
                good = {**good, name: content} if isinstance(content, int) else good
                broken = {n for n in good if (code / n).read_text() != text_of(n, good[n])}
                _, end = server.run("answer")
                if not broken:
                    imported.add(str([good["main.py"], good["helper.py"]]))
                    assert end["result"] == str([good["main.py"], good["helper.py"]]), (name, content)
                assert end["result"] in imported, (name, content, end)
        finally:
            worker.kill()
            server.close()
