"""Loading what a worker is pointed at: flows, and a sentence for each thing that is wrong."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from perfect_client.analysis import describe
from perfect_client.loading.loader import Loaded, load, load_all

Write = Callable[[str, str], Path]
FLOW = "from perfect_client import flow\n@flow\ndef {0}(): return '{0}'\n"


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, source: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source), encoding="utf-8")
        return file

    return write_file


def names(loaded: Loaded) -> List[str]:
    return [flow.name for flow in loaded.flows]


def test_the_flows_of_a_file_are_loaded(write: Write) -> None:
    file = write("some_flows.py", FLOW.format("one") + FLOW.format("two"))

    loaded = load(str(file))

    assert (names(loaded), loaded.problems) == (["one", "two"], [])
    assert loaded.flows[0]() == "one"


def test_a_file_may_import_its_neighbours(write: Write) -> None:
    write("neighbour.py", FLOW.format("next_door"))
    file = write("main_flows.py", "from neighbour import next_door\n")

    assert names(load(str(file))) == ["next_door"]


def test_a_module_that_a_file_defines_can_be_found_by_pickle(write: Write) -> None:
    import pickle

    loaded = load(str(write("pickled_flows.py", FLOW.format("one"))))

    assert pickle.loads(pickle.dumps(loaded.flows[0])) is loaded.flows[0]


def test_loading_twice_gives_the_same_flows(write: Write) -> None:
    file = str(write("twice_flows.py", FLOW.format("one")))

    assert load(file).flows[0] is load(file).flows[0]
    assert names(load_all([file, file])) == ["one"]


def test_a_folder_is_searched_for_files_with_flows(write: Write, tmp_path: Path) -> None:
    write("a_flows.py", FLOW.format("one"))
    write("deeper/still/b_flows.py", FLOW.format("two"))
    write("helper.py", "raise RuntimeError('no flow here, not imported')\n")
    write(".hidden/c.py", FLOW.format("hidden"))
    write("__pycache__/d.py", FLOW.format("cached"))
    write("env/pyvenv.cfg", "")
    write("env/lib/e.py", FLOW.format("installed"))

    loaded = load(str(tmp_path))

    assert (names(loaded), loaded.problems) == (["one", "two"], [])


def test_in_a_folder_a_flow_belongs_to_the_file_that_defines_it(write: Write, tmp_path: Path) -> None:
    write("a_first.py", "from b_second import two, flow\n" + FLOW.format("one") + "# perfect_client\n")
    write("b_second.py", FLOW.format("two"))

    assert names(load(str(tmp_path))) == ["one", "two"]


def test_two_files_of_one_name_are_two_modules(write: Write, tmp_path: Path) -> None:
    write("x/same_name.py", FLOW.format("one"))
    write("y/same_name.py", FLOW.format("two"))

    loaded = load(str(tmp_path))

    assert (names(loaded), loaded.problems) == (["one", "two"], [])


def test_a_file_with_a_name_of_the_standard_library_is_loaded(write: Write) -> None:
    import json

    loaded = load(str(write("json.py", FLOW.format("one"))))

    assert names(loaded) == ["one"]
    assert sys.modules["json"] is json


def test_a_file_whose_name_is_no_identifier_is_loaded(write: Write) -> None:
    assert names(load(str(write("daily-sales 2.py", FLOW.format("one"))))) == ["one"]


def test_a_file_in_a_package_may_import_relatively(write: Write, tmp_path: Path) -> None:
    write("shop_pkg/__init__.py", "")
    write("shop_pkg/parts.py", "NAME = 'relative'\n")
    source = "from .parts import NAME\nfrom perfect_client import flow\n@flow(name=NAME)\ndef x(): ...\n"
    file = write("shop_pkg/flows.py", source)

    loaded = load(str(file))

    assert (names(loaded), loaded.flows[0].__module__) == (["relative"], "shop_pkg.flows")


def test_a_dotted_module_is_loaded(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("dotted_pkg/__init__.py", "")
    write("dotted_pkg/jobs.py", "from collections import OrderedDict\n" + FLOW.format("one"))
    monkeypatch.chdir(tmp_path)

    assert names(load("dotted_pkg.jobs")) == ["one"]


def test_a_dotted_package_is_searched(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("whole_pkg/__init__.py", "from whole_pkg.a import one\n")
    write("whole_pkg/a.py", FLOW.format("one"))
    write("whole_pkg/sub/__init__.py", "")
    write("whole_pkg/sub/b.py", FLOW.format("two"))
    monkeypatch.chdir(tmp_path)

    loaded = load("whole_pkg")

    assert (names(loaded), loaded.problems) == (["one", "two"], [])


def test_a_dotted_module_gives_only_what_it_defines(write: Write, tmp_path: Path, monkeypatch: Any) -> None:
    write("foreign_flows.py", FLOW.format("foreign"))
    write("own_flows.py", "from foreign_flows import foreign\n" + FLOW.format("own"))
    monkeypatch.chdir(tmp_path)

    assert names(load("own_flows")) == ["own"]


# --------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("source", "line", "error"),
    [
        ("x = 1\nimport does_not_exist\n", 2, "ModuleNotFoundError: No module named 'does_not_exist'"),
        ("x = 1\n\ndef broken(:\n", 3, "SyntaxError: "),
        ("def f():\n    raise ValueError('deep')\nf()\n", 2, "ValueError: deep"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: the code called sys.exit(3)"),
        ("from perfect_client import task\ntask(weight=0)(print)\n", 2, "ConfigurationError: weight must be"),
    ],
)
def test_a_file_that_does_not_import_is_a_problem_with_its_place(
    write: Write, source: str, line: int, error: str
) -> None:
    file = write("broken_flows.py", source)

    loaded = load(str(file))

    assert loaded.flows == []
    (problem,) = loaded.problems
    assert problem.startswith("%s:%d does not import: %s" % (os.path.realpath(str(file)), line, error))


def test_a_broken_file_does_not_hide_the_others(write: Write, tmp_path: Path) -> None:
    write("a_broken.py", "import perfect_client\nraise ValueError('x')  # @flow\n")
    write("b_good.py", FLOW.format("one"))

    loaded = load(str(tmp_path))

    assert names(loaded) == ["one"]
    assert len(loaded.problems) == 1


def test_a_broken_file_leaves_no_half_module_behind(write: Write) -> None:
    load(str(write("half_module.py", "x = 1\nraise ValueError\n")))

    assert "half_module" not in sys.modules


@pytest.mark.parametrize("target", ["no/such/file.py", "no_such_file.py", "no-such-thing", "", "  "])
def test_a_target_that_does_not_exist_is_a_problem(target: str) -> None:
    loaded = load(target)

    assert (loaded.flows, loaded.problems) == ([], ["There is no file or folder %r." % target])


def test_a_module_that_does_not_exist_is_a_problem() -> None:
    (problem,) = load("no_such_module.at_all").problems

    assert "no_such_module" in problem and "does not import" in problem


def test_nothing_to_run_is_a_problem(write: Write, tmp_path: Path) -> None:
    file = write("empty/nothing.py", "x = 1\n")

    assert load(str(file)).problems == ["%s has no flow: decorate a function with @flow." % file]
    assert load(str(file.parent)).problems == [
        "The folder %s has no Python file with a flow." % os.path.realpath(str(file.parent))
    ]


def test_two_flows_of_one_name_are_a_problem_that_names_both_places(write: Write, tmp_path: Path) -> None:
    write("first_flows.py", FLOW.format("same"))
    write("other_flows.py", "\n\n" + FLOW.format("same"))

    loaded = load(str(tmp_path))

    assert names(loaded) == ["same"]
    (problem,) = loaded.problems
    assert "first_flows.py:2" in problem and "other_flows.py:4" in problem


def test_a_file_that_cannot_be_decoded_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "binary_flows.py"
    file.write_bytes(b"# perfect_client @flow\n\xff\xfe\x00")

    assert len(load(str(file)).problems) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the examples are written for Python 3.11")
def test_the_example_flows_load_and_have_a_plan() -> None:
    file = Path(__file__).parents[2] / "examples" / "workflows" / "example_flows.py"
    if not file.exists():
        pytest.skip("the examples are not here")

    loaded = load(str(file))

    assert loaded.problems == []
    assert all(describe.flow_spec(found).tasks for found in loaded.flows)
