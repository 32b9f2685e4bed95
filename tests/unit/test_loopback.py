"""Servers of this machine are never asked through a proxy, whatever the variables for proxies say."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from data.core import entry

ASK = """
import asyncio, json, os, sys, urllib.request
from data.core import entry

entry.ask_loopback_directly()
here, bucket = sys.argv[1], sys.argv[1].replace("127.0.0.1", "localhost")

import aiohttp, boto3, httpx, requests
from botocore.config import Config
from websockets.proxy import get_proxy
from websockets.uri import parse_uri

async def through_aiohttp():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(here) as answer:
        return answer.status

once = Config(retries={"total_max_attempts": 1})
s3 = boto3.session.Session("key", "secret").client("s3", endpoint_url=bucket, region_name="r", config=once)
print(json.dumps({
    "urllib": urllib.request.urlopen(here, timeout=5).status,
    "httpx": httpx.get(here, timeout=5).status_code,
    "requests": requests.get(here, timeout=5).status_code,
    "aiohttp": asyncio.run(through_aiohttp()),
    "boto3": s3.get_object(Bucket="bucket", Key="key")["ResponseMetadata"]["HTTPStatusCode"],
    "websockets": get_proxy(parse_uri(here.replace("http", "ws"))),
}))
"""


class Ok(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def address():
    server = HTTPServer(("127.0.0.1", 0), Ok)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_no_client_asks_a_proxy_for_this_machine(address):
    with socket.socket() as nobody:  # bound and not listening: who asks there is refused
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        names = ("http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
        known = {**os.environ, **dict.fromkeys(names, proxy), "NO_PROXY": "example.org,[::1]"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, address], env=known, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    asked = json.loads(done.stdout)
    assert asked.pop("websockets") is None
    assert asked == dict.fromkeys(("urllib", "httpx", "requests", "aiohttp", "boto3"), 200)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"http_proxy": "p"}, "localhost,127.0.0.1,::1"),
        (
            {"ALL_PROXY": "p", "no_proxy": "a.org", "NO_PROXY": "b.org, localhost"},
            "a.org,b.org,localhost,127.0.0.1,::1",
        ),
        ({"HTTPS_PROXY": "p", "no_proxy": "*"}, "*"),
        ({"HTTPS_PROXY": "p", "NO_PROXY": "[::1]"}, "::1,localhost,127.0.0.1"),
        ({"http_proxy": ""}, None),
    ],
)
def test_hosts_that_were_named_stay(monkeypatch, before, after):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    entry.ask_loopback_directly()
    assert os.environ.get("no_proxy") == os.environ.get("NO_PROXY") == after
    entry.ask_loopback_directly()
    assert os.environ.get("no_proxy") == after


def test_a_socks_proxy_that_nobody_here_speaks_to_is_said_to_be_left_out(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "a.org")
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")
    entry.ask_loopback_directly()
    assert "ALL_PROXY" not in os.environ
    assert capsys.readouterr().err == "ALL_PROXY is not used: SOCKS needs the packages socksio and pysocks\n"
