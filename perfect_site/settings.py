"""Django's settings. What a person may choose comes from the environment, read by ``perfect_site.env``."""

from __future__ import annotations

import os
from pathlib import Path

from csp.constants import NONE, SELF

from perfect_site import env

ENV = env.read(os.environ)
env.make_home(ENV.home)

BASE_DIR = Path(__file__).resolve().parent.parent
PERFECT_HOME = ENV.home
PERFECT_URL = ENV.url
PERFECT_TOKEN = ENV.token
PERFECT_DATABASE_GIVEN = ENV.database_given
PERFECT_TRUSTED_PROXIES = ENV.trusted_proxies
PERFECT_RETENTION_DAYS = ENV.retention_days
PERFECT_ENCRYPTION_KEYS = env.encryption_keys_of(ENV.home, ENV.encryption_keys)

DEBUG = ENV.debug
SECRET_KEY = ENV.secret_key or env.secret_key_of(ENV.home)
ALLOWED_HOSTS = list(ENV.allowed_hosts)
CSRF_TRUSTED_ORIGINS = [ENV.url] if ENV.url else []

INSTALLED_APPS = [
    "daphne",
    "runs",
    "flows",
    "perfect_site.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "ninja",
    "django_htmx",
    "django_filters",
    "servestatic",
    "perfect_site",  # after auth, whose console page for people it replaces
]

# Every one of them runs synchronously, so that perfect_site.asgi needs one hop to a thread for the whole chain.
MIDDLEWARE = [
    "perfect_site.server.middleware.problems",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "perfect_site.urls"
ASGI_APPLICATION = "perfect_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "perfect_site" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": ENV.database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"

# Cookies ignore ports: with Django's names two tools on one host would sign each other out.
SESSION_COOKIE_NAME = "perfect_session"
CSRF_COOKIE_NAME = "perfect_csrf"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ENV.https

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if ENV.https:
    # The server itself speaks plain HTTP: with an https address there is a proxy before it that ends TLS.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
    SECURE_HSTS_SECONDS = 30 * 24 * 3600
# W005, W021: sub-domains and browsers' preload lists are the domain owner's decision, not one of its tools'.
# W004, W008, W012, W016 ask for TLS; where PERFECT_URL is not https, perfect_site.checks says what that means.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"] + (
    [] if ENV.https else ["security.W004", "security.W008", "security.W012", "security.W016"]
)

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

DATA_UPLOAD_MAX_MEMORY_SIZE = 4 << 20  # perfect_site.server.request_limits refuses what is larger
FILE_UPLOAD_MAX_MEMORY_SIZE = 256 << 10  # what is larger waits in a file
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2_000

LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "perfect_site.server.assets.VersionedStorage"},
}

NINJA_PAGINATION_MAX_LIMIT = 1_000

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"}},
    "filters": {"seldom": {"()": "perfect_site.server.loglines.SeldomSuspicious"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["seldom"]}},
    "root": {"handlers": ["console"], "level": ENV.log_level},
    "loggers": {
        "django": {"handlers": [], "level": ENV.log_level, "propagate": True},
        "django.request": {"level": "ERROR"},  # each 404 is not an event of the operator's
        "django.server": {"handlers": [], "propagate": True},
        "daphne": {"level": "WARNING"},
        "asyncio": {"level": "WARNING"},
    },
}
