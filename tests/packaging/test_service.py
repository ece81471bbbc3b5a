"""The systemd service on a booted machine: installed, started, killed, misled, removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.packaging.booted import Machine, booted, put_program

UNIT = "sdx-ledger.service"
INSTALL = "/srv/source/scripts/install-service"
VENUE = """
[Service]
ExecStart=/opt/program/bin/sdx-ledger sandbox --port 8470
WorkingDirectory=/tmp
StandardOutput=file:/tmp/venue
"""
STOPPED = (
    "sdx-ledger: no PostgreSQL answers on /var/lib/sdx-ledger, and only sdx-ledger may start it; start the service "
    "(systemctl start sdx-ledger), then look again\n"
)
CLOSED = "sdx-ledger: the ledger in /var/lib/sdx-ledger is closed to this user; look as root (sudo) or as sdx-ledger\n"
FORBIDDEN = re.compile("permission|denied|traceback", re.IGNORECASE)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the service installed and its key in place, and a venue that runs."""
    with booted(tmp_path_factory.mktemp("machine")) as made:
        put_program(made, "/opt/program")
        made.path("/etc/systemd/system/venue.service").write_text(VENUE)
        made.done("systemctl", "daemon-reload")
        made.done("systemctl", "start", "venue")
        said = made.run(INSTALL, "--program", "/opt/program")
        assert said.returncode == 0, said.stderr
        assert "install -m 600 /dev/stdin /etc/sdx-ledger/api_key" in said.stderr
        keys = venue_says(made)
        for name in ("api_key", "api_secret"):
            made.path(f"/etc/sdx-ledger/{name}").write_text(keys[f"SDX_{name.upper()}"])
        urls = [f"{name}={keys[name]}\n" for name in ("SDX_REST_URL", "SDX_STREAM_URL")]
        made.path("/etc/sdx-ledger/env").write_text("".join(urls))
        yield made


def venue_says(machine: Machine) -> dict[str, str]:
    """The settings that the sandbox prints."""
    machine.until("venue.service", 30, ActiveState="active")
    machine.done("sh", "-c", "until grep -q SDX_API_SECRET /tmp/venue; do sleep 0.1; done")
    lines = machine.path("/tmp/venue").read_text().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))


@pytest.fixture
def started(machine: Machine) -> Machine:
    """The service runs and its account is there."""
    machine.done("systemctl", "start", UNIT)
    machine.done("sh", "-c", "until sdx-ledger status 2>/dev/null | grep -q 'account main'; do sleep 0.2; done")
    return machine


def test_the_unit_is_enabled_verified_and_closed(machine: Machine) -> None:
    checked = machine.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}")
    again = machine.run(INSTALL, "--program", "/opt/program")
    score = machine.done("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1]

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert machine.done("systemctl", "is-enabled", UNIT) == "enabled\n"
    assert again.returncode == 0, again.stderr
    assert again.stderr.endswith("look: sdx-ledger status, journalctl -u sdx-ledger\n")
    assert float(re.findall(r"\d+\.\d+", score)[0]) < 2, score


def test_root_and_the_services_user_look_and_another_user_is_told_whom_to_ask(started: Machine) -> None:
    for user, words in ((None, ("status",)), (None, ("verify",)), ("sdx-ledger", ("status",))):
        seen = started.run("sdx-ledger", *words, user=user)
        assert (seen.returncode, FORBIDDEN.search(seen.stdout + seen.stderr)) == (0, None), seen

    other = started.run("sdx-ledger", "status", user="daemon")
    assert (other.returncode, other.stdout, other.stderr) == (5, "", CLOSED)


def test_a_killed_main_process_ends_with_its_server_and_is_started_again_within_ten_seconds(started: Machine) -> None:
    (main,) = started.show(UNIT, "MainPID")
    server = started.path("/var/lib/sdx-ledger/pg/postmaster.pid").read_text().split()[0]
    started.done("kill", "-9", main)

    started.done("sh", "-c", f"until [ $(systemctl show -P MainPID {UNIT}) != {main} ]; do sleep 0.05; done")
    started.until(UNIT, 10, SubState="running")

    assert not started.path(f"/proc/{server}").exists()
    assert started.show(UNIT, "MainPID", "NRestarts") != (main, "0")
    started.done("sh", "-c", "until sdx-ledger verify >/dev/null 2>&1; do sleep 0.2; done")


def test_a_stop_is_clean_and_leaves_the_way_to_start_again(started: Machine) -> None:
    started.done("systemctl", "stop", UNIT)

    assert started.show(UNIT, "ActiveState", "Result", "ExecMainStatus") == ("inactive", "success", "0")
    looked = started.run("sdx-ledger", "status")
    assert (looked.returncode, looked.stdout, looked.stderr) == (5, "", STOPPED)


@pytest.mark.parametrize(
    ("harm", "status"),
    [
        ("echo wrong > /etc/sdx-ledger/api_secret", "3"),
        ("echo SDX_SOCKETS=9 >> /etc/sdx-ledger/env", "3"),
        ("rm /etc/sdx-ledger/api_key", "243"),
        ("ln -sfnT /opt/nowhere /opt/sdx-ledger", "203"),
    ],
    ids=["a wrong secret", "a refused setting", "no file with the key", "no program"],
)
def test_what_a_person_must_mend_ends_in_failed_not_in_a_loop(machine: Machine, harm: str, status: str) -> None:
    machine.done("systemctl", "stop", UNIT)
    machine.done("sh", "-c", f"cp -a /etc/sdx-ledger /tmp/kept && {harm}")
    try:
        machine.run("systemctl", "start", UNIT)
        machine.until(UNIT, 30, ActiveState="failed", ExecMainStatus=status, NRestarts="0")
        assert UNIT in machine.done("systemctl", "list-units", "--failed")
    finally:
        machine.done("sh", "-c", "rm -r /etc/sdx-ledger && mv /tmp/kept /etc/sdx-ledger")
        machine.done("ln", "-sfnT", "/opt/program", "/opt/sdx-ledger")
        machine.done("systemctl", "reset-failed", UNIT)


def test_what_is_removed_leaves_keys_settings_and_ledger(started: Machine) -> None:
    removed = started.run(INSTALL, "--remove")

    assert (removed.returncode, "kept are /etc/sdx-ledger" in removed.stderr) == (0, True), removed.stderr
    assert started.show(UNIT, "LoadState", "ActiveState") == ("not-found", "inactive")
    for gone in ("/opt/sdx-ledger", "/usr/local/bin/sdx-ledger", "/etc/sysusers.d/sdx-ledger.conf"):
        assert not os.path.lexists(started.path(gone))
    for kept in ("/etc/sdx-ledger/api_key", "/etc/sdx-ledger/env", "/var/lib/sdx-ledger/pg/PG_VERSION", "/opt/program"):
        assert os.path.lexists(started.path(kept))
