"""Applications of Rails as Debian has them, served by Puma: Action Mailbox, and Redmine."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from servers import programs
from servers.children import die_with_parent
from servers.ports import free_port


def lacks(*names: str) -> str:
    """Why tests are skipped: what is not here; else empty."""
    absent = [f"{name}: {programs.lacking(name)}" for name in names if programs.found(name) is None]
    return f"there is no {', '.join(absent)}" if absent else ""


_DESK = """
require "rails"
require "active_record/railtie"
require "active_storage/engine"
require "active_job/railtie"
require "action_controller/railtie"
require "action_mailbox/engine"

class Desk < Rails::Application
  config.root = __dir__
  config.eager_load = false
  config.secret_key_base = "x" * 64
  config.hosts.clear
  config.logger = Logger.new(STDERR)
  config.active_job.queue_adapter = :async
  config.active_storage.service = :disk
  config.active_storage.service_configurations = { "disk" => { "service" => "Disk", "root" => "#{__dir__}/files" } }
  config.action_mailbox.ingress = ENV.fetch("INGRESS").to_sym
end

class ApplicationMailbox < ActionMailbox::Base
  routing all: :desk
end

class DeskMailbox < ApplicationMailbox
  def process
    File.open("taken", "ab") { |file| file.puts inbound_email.source.b.unpack1("H*") }
  end
end

Desk.initialize!
%w[activestorage actionmailbox].each do |name|
  Dir["#{Gem.loaded_specs[name].full_gem_path}/db/migrate/*.rb"].sort.each do |file|
    require file
    File.basename(file, ".rb").sub(/^\\d+_/, "").camelize.constantize.migrate(:up)
  end
end
run Desk
"""

_REDMINE = """
require_relative "config/environment"
Redmine::DefaultData::Loader.load("en")
Setting.mail_handler_api_enabled = "1"
Setting.mail_handler_api_key = "s3cret"
project = Project.new(name: "Support")
project.identifier = "support"
project.save!
run Rails.application
"""


class Served:
    """A context manager: Puma serves ``directory``/desk.ru on a free port of 127.0.0.1."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.port = free_port()
        self._environment = {**os.environ, "RAILS_ENV": "production", **environment}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        words = ["-t", "1:1", "-b", f"tcp://127.0.0.1:{self.port}", "desk.ru"]
        with (self.directory / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [programs.find("puma"), *words], cwd=self.directory, env=self._environment,
                stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + 180
        while True:
            with closing(socket.socket()) as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError((self.directory / "log.txt").read_text("utf-8", "replace"))
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)


class ActionMailbox(Served):
    """An application that notes the octets of all that comes in by ``ingress``."""

    def __init__(self, directory: Path, ingress: str, password: str) -> None:
        own = {"INGRESS": ingress, "RAILS_INBOUND_EMAIL_PASSWORD": password}
        super().__init__(directory, DATABASE_URL=f"sqlite3:{directory}/desk.db", **own)
        (directory / "desk.ru").write_text(_DESK, "utf-8")

    def taken(self, count: int) -> list[bytes]:
        """What came in, once these are so many."""
        path = self.directory / "taken"
        deadline = time.monotonic() + 30
        while True:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            if len(lines) >= count and lines[-1].endswith(b"\n"):
                return [bytes.fromhex(line.decode()) for line in lines]
            assert time.monotonic() < deadline, f"{len(lines)} of {count}"
            time.sleep(0.05)


class Redmine(Served):
    """A Redmine with one project, ``support``, whose key for mail is ``s3cret``. Its tables are made first, which takes
    half a minute."""

    def __init__(self, directory: Path) -> None:
        self._home = directory / "redmine"
        super().__init__(self._home)
        shutil.copytree("/usr/share/redmine", self._home, symlinks=True)
        lock = self._home / "Gemfile.lock"
        real = lock.resolve()
        lock.unlink()
        if real.exists():
            shutil.copy(real, lock)
        (self._home / "instances").unlink()
        here = self._home / "instances" / "default"
        for name in ("config", "tmp/cache", "log", "public/plugin_assets", "files"):
            (here / name).mkdir(parents=True)
        database = f"production:\n  adapter: sqlite3\n  database: {here}/redmine.db\n"
        (self._home / "config" / "database.yml").unlink(missing_ok=True)
        for place in (self._home, here):
            (place / "config" / "database.yml").write_text(database)
        (here / "config" / "secret_key.txt").write_text("x" * 64)
        (self._home / "desk.ru").write_text(_REDMINE, "utf-8")

    def __enter__(self) -> Self:
        done = subprocess.run(
            [programs.find("bundle"), "exec", "rake", "db:migrate"],
            cwd=self._home, env=self._environment, capture_output=True, text=True, timeout=250,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return super().__enter__()

    def issues(self) -> list[tuple[str, str]]:
        """Subject and text of what was made."""
        with closing(sqlite3.connect(self._home / "instances/default/redmine.db")) as database:
            return database.execute("SELECT subject, description FROM issues ORDER BY id").fetchall()
