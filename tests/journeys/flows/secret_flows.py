"""Flows that are given secrets by every door, and tell what they got to the ledger alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict

from perfect_client import RunInput, Secret, Variable, flow, pause_flow_run, runtime, task
from perfect_client.artifacts import create_markdown_artifact
from perfect_client.schedules import CronSchedule

CANARY = os.environ["CANARY"]
LEDGER = Path(os.environ["JOURNEY_LEDGER"])


class Pin(RunInput):
    pin: Secret[str]


def tell(**entry: object) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps({"run": runtime.flow_run.id, **entry}) + "\n")


@task
def use(word: str) -> str:
    subprocess.run(["echo", "a process says", word], check=True)
    return word


@flow(name="Inner")
def inner(db_password: str, word: Secret[str]) -> str:
    return db_password + word.get()


@flow(
    name="Keeper",
    configurations={"plain": {}, "live": {"db_password": CANARY + "-config"}},
    schedule=CronSchedule("0 3 1 1 *", name="yearly", parameters={"key": CANARY + "-coded"}),
)
def keeper(
    key: Secret[str] = Secret(CANARY + "-default"),  # noqa: B008
    db_password: str = CANARY + "-named-default",
    login: Dict[str, Any] = {},  # noqa: B006
    fails: bool = False,
) -> str:
    tell(key=key.get(), db_password=db_password, login=login)
    print("got", key.get(), db_password, login)
    use(key.get())
    use(db_password)
    inner(db_password, key)
    create_markdown_artifact(f"the key is {key.get()}")
    if fails:
        raise RuntimeError(f"cannot use {key.get()}")
    return key.get()


@flow(name="Asker")
def asker() -> None:
    Variable.set("api_key", CANARY + "-variable", overwrite=True)
    tell(variable=Variable.get("api_key"), pin=pause_flow_run(wait_for_input=Pin, timeout=60).pin.get())
