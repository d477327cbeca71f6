"""A certified OAuth 2.0 server (oidc-provider, on node), and a person who says yes to it.

Its packages come from the npm registry, once, into the user's cache.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import time
import urllib.request
from html import unescape
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Self
from urllib.parse import urlencode, urljoin

from servers import programs
from servers.children import die_with_parent
from servers.ports import free_port

_SOURCE = Path(__file__).parent / "oidc"
SECRET = "a secret: with %25 & more"
"""Of the clients ``posting`` and ``basic``."""


def lacks() -> str:
    """Why there can be no such server here; empty if there can."""
    node = programs.found("node")
    if node is None or programs.found("npm") is None:
        return "there is no node and npm"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    found = re.match(r"v(\d+)\.", told)
    return "" if found and int(found[1]) >= 20 else f"node is older than 20: {told.strip()}"


def packages() -> Path:
    """The directory with the server's packages; fetched if it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    wanted = json.loads((_SOURCE / "package.json").read_text())["dependencies"]["oidc-provider"]
    directory = cache / "mailpoller-tests" / f"oidc-provider-{wanted}"
    if not (directory / "ready").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        shutil.copy(_SOURCE / "package.json", directory)
        command = [programs.find("npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=120)
        (directory / "ready").touch()
    return directory


class OAuthServer:
    """A context manager that starts the server. ``jwk``: the public key of the client ``signing``."""

    def __init__(self, jwk: dict[str, str]) -> None:
        self._jwk = jwk
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        command = [
            programs.find("node"),
            str(_SOURCE / "server.mjs"),
            str(self.port),
            str(packages()),
            json.dumps(self._jwk),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        assert self._process.stdout is not None
        deadline, said = time.monotonic() + 60, b""
        while b"ready" not in said:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.__exit__()
                raise RuntimeError("the OAuth server does not start")
            said = self._process.stdout.readline()
            if not said:
                self.__exit__()
                raise RuntimeError("the OAuth server ended at once")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def settings(self, client: str, grant: str, **more: object) -> dict[str, object]:
        """An ``auth`` block for one of the clients."""
        written: dict[str, object] = {
            "type": "oauth2", "grant": grant, "client_id": client, "token_url": f"{self.url}/token",
            "authorization_url": f"{self.url}/auth", "device_url": f"{self.url}/device/auth",
            "scopes": ["mail"] if grant == "client_credentials" else ["openid", "offline_access", "mail"],
        }  # fmt: skip
        if client in ("posting", "basic"):
            written["client_secret"] = SECRET
        return {**written, **more}


class Person:
    """Someone before a browser: fills in every form that comes, and says yes (or no)."""

    def __init__(self, name: str, *, willing: bool = True) -> None:
        self._name = name
        self._willing = willing
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
        self.pages: list[str] = []

    def visit(self, url: str, **typed: str) -> str:
        """Open the page and go through all that follows; the last page. ``typed``: what to type into which field."""
        page, at = self._open(url)
        for _ in range(10):
            self.pages.append(page)
            forms = re.findall(r"<form.*?</form>", page, re.DOTALL)
            if not self._willing and (abort := re.search(r'href="([^"]+/abort)"', page)):
                page, at = self._open(urljoin(at, unescape(abort[1])))
                continue
            if not forms:
                return page
            fields = {name: value for name, value in map(_field, re.findall(r"<input[^>]*>", forms[0])) if name}
            fields |= {"login": self._name, "password": "any"} if "login" in fields else {}
            fields |= {name: value for name, value in typed.items() if name in fields}
            action = re.search(r'action="([^"]+)"', forms[0])
            assert action is not None
            page, at = self._open(urljoin(at, unescape(action[1])), fields)
        raise AssertionError("the pages do not come to an end")

    def _open(self, url: str, fields: dict[str, str] | None = None) -> tuple[str, str]:
        body = None if fields is None else urlencode(fields).encode()
        with self._opener.open(url, body, timeout=60) as response:
            return response.read().decode(), response.url


def _field(tag: str) -> tuple[str, str]:
    name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
    return unescape(name[1]) if name else "", unescape(value[1]) if value else ""
