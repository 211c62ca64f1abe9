"""Libraries that start threads or open connections while they are imported: their runs give the right results.

Each file uses its library at import, as programs do, and again in its run; four runs at a time. Both ways of starting
are tried where the worker chooses a fork; of the others a fork hangs, dies, or gives the answers of another run.
"""

from __future__ import annotations

import importlib.util
import os
import socketserver
import textwrap
import threading

import pytest

from tests.worker.test_starts import start_of, web, write  # noqa: F401

RUNS = 4
NAMES = [
    "numpy",
    "scipy",
    "pandas",
    "polars",
    "pyarrow",
    "duckdb",
    "sklearn",
    "requests",
    "httpx",
    "boto3",
    "sqlalchemy",
    "redis",
    "grpc",
    "sentry_sdk",
]
FORKED = {"numpy", "scipy", "pandas"}  # what they leave survives a fork

FILES = {
    "numpy": """
        import numpy as np
        A = np.ones((400, 400)) @ np.ones((400, 400))
        @flow
        def f(n: int): return int((A @ A)[0, 0]) // 400 // 400 + n
    """,
    "scipy": """
        import numpy as np, scipy.linalg
        INVERSE = scipy.linalg.inv(np.eye(300) * 2)
        @flow
        def f(n: int): return int(scipy.linalg.inv(INVERSE)[0, 0]) + 398 + n
    """,
    "pandas": """
        import pandas as pd
        TABLE = pd.DataFrame({"k": [1, 2] * 1000, "v": range(2000)}).groupby("k").sum()
        @flow
        def f(n: int): return int(pd.concat([TABLE, TABLE]).groupby("k").v.sum().sum()) - 3998000 + 400 + n
    """,
    "polars": """
        import polars as pl
        BASE = pl.DataFrame({"g": list(range(1000)) * 100, "v": list(range(100000))})
        TOTAL = BASE.lazy().group_by("g").agg(pl.col("v").sum()).collect()
        @flow
        def f(n: int): return BASE.lazy().group_by("g").agg(pl.col("v").sum()).collect().height - 600 + n
    """,
    "pyarrow": """
        import pyarrow as pa, pyarrow.compute as pc
        TABLE = pa.table({"k": [1, 2] * 100000, "v": list(range(200000))}).group_by("k").aggregate([("v", "sum")])
        @flow
        def f(n: int):
            table = pa.table({"k": [1, 2] * 100000, "v": list(range(200000))})
            return table.group_by("k").aggregate([("v", "count")]).num_rows + 398 + n
    """,
    "duckdb": """
        import duckdb
        DB = duckdb.connect()
        DB.execute("create table t as select range as i from range(400)")
        @flow
        def f(n: int): return DB.execute("select count(*) from t").fetchone()[0] + n
    """,
    "sklearn": """
        import numpy as np
        from sklearn.ensemble import HistGradientBoostingClassifier
        X, Y = np.arange(400.0).reshape(-1, 1), np.arange(400) > 200
        MODEL = HistGradientBoostingClassifier(max_iter=3).fit(X, Y)
        @flow
        def f(n: int): return len(HistGradientBoostingClassifier(max_iter=3).fit(X, Y).predict(X)) + n
    """,
    "requests": """
        import requests
        SESSION = requests.Session()
        CONF = SESSION.get("http://127.0.0.1:%(web)d/conf").text
        @flow
        def f(n: int): return int(SESSION.get("http://127.0.0.1:%(web)d/item/%%d" %% n, timeout=10).text[6:]) + 400
    """,
    "httpx": """
        import httpx
        CLIENT = httpx.Client()
        CONF = CLIENT.get("http://127.0.0.1:%(web)d/conf").text
        @flow
        def f(n: int): return int(CLIENT.get("http://127.0.0.1:%(web)d/item/%%d" %% n, timeout=10).text[6:]) + 400
    """,
    "boto3": """
        import boto3
        S3 = boto3.client("s3", endpoint_url="http://127.0.0.1:%(web)d", region_name="eu", aws_access_key_id="a",
                          aws_secret_access_key="b")
        CONF = S3.get_object(Bucket="bucket", Key="conf")["Body"].read()
        @flow
        def f(n: int):
            body = S3.get_object(Bucket="bucket", Key=str(n))["Body"].read()
            return int(body.split(b"/")[2].split(b"?")[0]) + 400
    """,
    "sqlalchemy": """
        import pathlib, sqlalchemy as sa
        ENGINE = sa.create_engine("sqlite:///%%s" %% (pathlib.Path(__file__).parent / ("db%%d" %% id(flow))))
        with ENGINE.begin() as connection:
            connection.execute(sa.text("create table if not exists t (i int)"))
        @flow
        def f(n: int):
            with ENGINE.begin() as connection:
                return connection.execute(sa.text("select 400 + %%d" %% n)).scalar()
    """,
    "redis": """
        import redis
        CLIENT = redis.Redis(port=%(redis)d, protocol=2)
        CONF = CLIENT.get("conf")
        @flow
        def f(n: int): return int(CLIENT.get(str(n))) + 400
    """,
    "grpc": """
        import grpc
        CHANNEL = grpc.insecure_channel("127.0.0.1:%(grpc)d")
        ECHO = CHANNEL.unary_unary("/echo/Echo")
        CONF = ECHO(b"conf", timeout=20)
        @flow
        def f(n: int): return int(ECHO(b"%%d" %% n, timeout=10)) + 400
    """,
    "sentry_sdk": """
        import sentry_sdk
        sentry_sdk.init("http://key@127.0.0.1:%(web)d/1")
        sentry_sdk.capture_message("imported")
        sentry_sdk.flush(2)
        @flow
        def f(n: int):
            sentry_sdk.capture_message("running")
            return 400 + n
    """,
}


class AnswersWithTheKey(socketserver.StreamRequestHandler):
    """As much of Redis as GET needs: the value of each key is its name."""

    def handle(self):
        while True:
            head = self.rfile.readline()
            if not head.startswith(b"*"):
                return
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
            answer = b"$%d\r\n%s\r\n" % (len(words[-1]), words[-1]) if words[0].upper() == b"GET" else b"+OK\r\n"
            self.wfile.write(answer)


@pytest.fixture
def redis_port():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), AnswersWithTheKey)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def grpc_port(request):
    if "grpc" not in request.node.name:
        yield 0
        return
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(8))
    echo = grpc.unary_unary_rpc_method_handler(lambda asked, context: asked)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo", {"Echo": echo})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("name", "start"), [*((name, "auto") for name in NAMES), *((name, "fresh") for name in sorted(FORKED))]
)
def test_a_library_that_is_used_at_import_works_in_runs(
    server,
    start_worker,
    tmp_path,
    web,  # noqa: F811
    redis_port,
    grpc_port,
    name,
    start,
):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    ports = {"web": web, "redis": redis_port, "grpc": grpc_port}
    file = write(tmp_path / "uses.py", "from perfect_client import flow\n" + textwrap.dedent(FILES[name]) % ports)
    start_worker("--start", start, targets=[file], OMP_NUM_THREADS="2")
    server.wait(lambda: server.names(), seconds=60)

    runs = [server.offer("f", n=number) for number in range(RUNS)]

    server.wait(lambda: all(run.end for run in runs), seconds=90)
    assert [run.end["result"] or run.end for run in runs] == [str(400 + number) for number in range(RUNS)]
    if start == "auto":
        assert start_of(server, "f")[0] == ("fork" if name in FORKED else "fresh"), start_of(server, "f")


def test_all_libraries_were_tried():
    """Where everything that the tests need is there, as in CI, nothing is left out."""
    missing = [name for name in NAMES if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip("not installed: " + ", ".join(missing))
    assert missing == []
