"""Which changes of files make a worker import again, and how often those of data do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable

from perfect_client.loading import sources


def watched(folder: Path, now: float, data: Iterable[str] = ()) -> sources.Watched:
    made = sources.Watched([str(folder)])
    read_again(made, folder, now, data)
    return made


def read_again(made: sources.Watched, folder: Path, now: float, data: Iterable[str] = ()) -> None:
    paths = [str(folder / name) for name in data]
    files = sources.stamps({*sources.named_files([str(folder)]), *paths})
    made.learn(files, sources.folders([str(folder)]), paths, now)


def change(path: Path) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(path.read_text() + "#\n" if path.exists() else "")
    os.utime(str(path), ns=(before + 1_000_000_000, before + 1_000_000_000))


def test_a_changed_a_new_and_a_lost_module_count(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        change(tmp_path / name)
    made = watched(tmp_path, 0.0)
    assert not made.have_changed(1.0)

    change(tmp_path / "a.py")
    assert made.have_changed(1.0)

    read_again(made, tmp_path, 1.0)
    (tmp_path / "b.py").unlink()
    assert made.have_changed(2.0)

    read_again(made, tmp_path, 2.0)
    change(tmp_path / "c.py")
    os.utime(str(tmp_path), ns=(1, 1))  # its time tells of the new file, however coarse the file system's clock is
    assert made.have_changed(3.0)


def test_what_changes_while_an_import_goes_on_counts_after_it(tmp_path: Path) -> None:
    change(tmp_path / "a.py")
    made = watched(tmp_path, 0.0)

    made.look_again()
    change(tmp_path / "a.py")
    read_again(made, tmp_path, 1.0)

    assert made.have_changed(1.0)


def test_data_that_changes_all_the_time_is_followed_less_and_less(tmp_path: Path) -> None:
    change(tmp_path / "conf.json")
    made, followed = watched(tmp_path, 0.0, ["conf.json"]), []

    for second in range(1, 200):
        change(tmp_path / "conf.json")
        if made.have_changed(float(second)):
            followed.append(second)
            read_again(made, tmp_path, float(second), ["conf.json"])

    assert followed == [1, 3, 7, 15, 31, 63, 127]


def test_after_a_quiet_time_data_is_followed_at_once(tmp_path: Path) -> None:
    change(tmp_path / "conf.json")
    made = watched(tmp_path, 0.0, ["conf.json"])
    for second in (1.0, 3.0, 1_000.0, 1_001.0):
        change(tmp_path / "conf.json")
        assert made.have_changed(second), second
        read_again(made, tmp_path, second, ["conf.json"])
