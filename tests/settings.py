"""The settings of the tests: a home of their own, so that nothing touches the one of the person who runs them.

``TESTS_DATABASE_URL=postgres://…`` runs the server's tests on that database server instead of SQLite.
"""

import os
import tempfile

for _name in [name for name in os.environ if name.startswith("PERFECT_") and name != "PERFECT_SCREENSHOTS"]:
    del os.environ[_name]
_home = tempfile.TemporaryDirectory(prefix="perfect-tests-")
os.environ["PERFECT_HOME"] = _home.name
if "TESTS_DATABASE_URL" in os.environ:
    os.environ["PERFECT_DATABASE_URL"] = os.environ["TESTS_DATABASE_URL"]
os.environ["PERFECT_SECRET_KEY"] = "only-for-tests-" + "x" * 40

from perfect_site.settings import *  # noqa: E402, F403 - after the environment

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a slow hash is not what is tested
# A test's threads end without giving their connections back; each opens its own.
DATABASES["default"].get("OPTIONS", {}).pop("pool", None)  # noqa: F405
