"""Whether MLflow's server, or the database's that it is told to use, is there and lets us in: said in seconds.

MLflow's own client would try for minutes and then name neither the variable nor what to do.
"""

from __future__ import annotations

import base64
import os
import socket
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit

from data.core.params import UserError

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # of databases that MLflow may be told to use
ANSWER_SECONDS = 3.0  # a server that is there answers /health in milliseconds


def check(uri: str, advice: str = "start it, or correct the variable") -> None:
    """UserError, in one line that names the variable, if a tracking server is not there or does not let us in."""
    if not answers(uri):
        raise UserError(f"REMINT_MLFLOW_URI={shown(uri)}: no MLflow server answers there; {advice}")
    if why := refusal(uri):
        raise UserError(f"REMINT_MLFLOW_URI: {why}")


def answers(uri: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Tell whether a tracking server, or a database's server, is there; databases in files always are."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        port = PORTS.get(parts.scheme.partition("+")[0])
        return port is None or not parts.hostname or _listens(parts.hostname, parts.port or port, seconds)
    try:
        urllib.request.urlopen(_bare(uri).rstrip("/") + "/health", timeout=seconds).close()
    except urllib.error.HTTPError:
        return True  # it refuses, but it is there
    except (OSError, ValueError):
        return False
    return True


def _listens(host: str, port: int, seconds: float) -> bool:
    """MLflow itself would knock at an absent database for 100 seconds."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def refusal(uri: str, seconds: float = ANSWER_SECONDS) -> str:
    """Why a tracking server that is there does not let us in, as one line that names the variable; "" if it does."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return ""
    request = urllib.request.Request(_bare(uri).rstrip("/") + "/api/2.0/mlflow/experiments/search?max_results=1")
    login = _login(uri)
    if login:
        request.add_header("Authorization", login)
    try:
        urllib.request.urlopen(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            return ""  # not about who we are
        advice = "it does not know" if login else "it wants"
        if error.code == 403:
            return f"the MLflow server {shown(uri)} refuses (403); see its --allowed-hosts, and what the user may do"
        return (
            f"the MLflow server {shown(uri)} refuses (401): {advice} the user and password of "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    except (OSError, ValueError):
        return ""  # `answers` says so
    return ""


def shown(uri: str) -> str:
    """Return an address without the user, password or token it may carry."""
    return _bare(uri)


def _login(uri: str) -> str:
    """The header with which MLflow's own client would introduce itself, "" without credentials."""
    parts = urlsplit(uri)
    name = os.environ.get("MLFLOW_TRACKING_USERNAME") or unquote(parts.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or unquote(parts.password or "")
    if name and password:
        return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else ""


def _bare(uri: str) -> str:
    """An address without the user and password before its host."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else uri
