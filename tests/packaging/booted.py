"""A machine to install on: systemd as process 1 in namespaces of its own, with this machine's /usr and an empty rest.

No disk, no network but its own loopback, its own control group; gone as a whole when the block ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger import config
from tests.patience import Patience, stretched

ROOT = Path(config.__file__).parents[1]
SYSTEMD = Path("/usr/lib/systemd/systemd")
PYTHON = f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
BOOT_S = 30.0
POLL_S = 0.05

BOOT = r"""
set -eu
new=$1; sources=$2; packages=$3; python=$4
mount -t tmpfs -o mode=755 tmpfs "$new"
cd "$new"
mkdir -p usr etc var/tmp run proc sys dev tmp root opt srv/source srv/packages srv/python old
for name in bin sbin lib lib32 lib64; do [ ! -L "/$name" ] || ln -s "usr/$name" "$name"; done
into() { mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"; }
into /usr usr
mount -t tmpfs -o mode=755 tmpfs usr/local
mkdir usr/local/bin
into "$sources" srv/source
into "$packages" srv/packages
into "$python" srv/python
cp -a /etc/ld.so.* etc/ 2>/dev/null || true
printf '%s::\n' root:x:0:0::/root daemon:x:1:1::/ nobody:x:65534:65534::/ | sed 's/::$/:/' > etc/passwd
printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' > etc/group
printf 'passwd: files\ngroup: files\nhosts: files\n' > etc/nsswitch.conf
echo '127.0.0.1 localhost' > etc/hosts
mkdir -p etc/systemd/system
tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id # without one systemd enables whatever the distribution likes
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do touch "dev/$name" && mount --bind "/dev/$name" "dev/$name"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
ln -s /proc/self/fd dev/fd
pivot_root . old
cd /
umount -l old
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin "$5" --unit=basic.target --log-target=journal --show-status=no
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted machine."""

    pid: int
    """Its process 1, as it is seen from here."""

    def path(self, inside: str) -> Path:
        """A file of the machine, as it is reached from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def run(self, *words: str, user: str | None = None, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command on the machine, as root or as this user."""
        become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user else []
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [*enter, "env", "-i", f"PATH={path}", "HOME=/root", *become, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=stretched(within_s),
        )

    def done(self, *words: str) -> str:
        """What a command that must succeed says on standard output."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, *names: str) -> tuple[str, ...]:
        """Properties of a unit."""
        return tuple(self.done("systemctl", "show", "--property", name, "--value", unit).strip() for name in names)

    def until(self, unit: str, within_s: float, **wanted: str) -> float:
        """Wait until the unit has these properties; how long that took, in seconds."""
        patience, began_s = Patience(within_s), time.monotonic()
        while (found := self.show(unit, *wanted)) != tuple(wanted.values()):
            log = self.run("journalctl", "--no-pager", "-o", "cat", "-n", "20", "-u", unit).stdout
            assert not patience.is_over, f"{unit}: expected {wanted}, got {found} after {within_s:.0f} s\n{log}"
            time.sleep(POLL_S)
        return time.monotonic() - began_s


def _hierarchy() -> Path | None:
    """Where control groups of version 2 are mounted."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next((Path(words[4]) for words in lines if words[words.index("-") + 1] == "cgroup2"), None)


def why_not() -> str | None:
    """What stands in the way of booting one here; None: nothing that can be seen before it is tried."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux can boot a systemd of its own"
    if not SYSTEMD.exists():
        return "no systemd is installed that could be booted"
    if _hierarchy() is None:
        return "no control groups of version 2 are mounted"
    if _installation() is None:
        return f"{sys.base_prefix} is in a home folder, which no service sees, and /usr/{PYTHON} is not there"
    return None


def _installation() -> Path | None:
    """An installation of the Python that runs the tests, which a service may use too: not in a home folder."""
    for prefix in (Path("/usr"), Path(sys.base_prefix).resolve()):
        if (prefix / PYTHON).exists() and prefix.parts[1] not in ("root", "home"):
            return prefix
    return None


def put_program(machine: Machine, folder: str) -> None:
    """An environment in ``folder`` as an installer leaves it; its packages are those of the tests."""
    there = machine.path(folder)
    packages = there / "lib" / Path(PYTHON).name / "site-packages"
    packages.mkdir(parents=True)
    (packages / "lent.pth").write_text("/srv/source\n/srv/packages\n")
    (there / "pyvenv.cfg").write_text("home = /srv/python/bin\ninclude-system-site-packages = false\n")
    (there / "bin").mkdir()
    (there / "bin" / "python").symlink_to(f"/srv/python/{PYTHON}")
    command = there / "bin" / "sdx-ledger"
    command.write_text(f"#!{folder}/bin/python\nimport sys\nfrom ledger.__main__ import main\nsys.exit(main())\n")
    command.chmod(0o755)


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine for as long as the block lasts; ``folder`` is where it is mounted, for itself alone. Where it cannot be
    had the test is skipped with the reason."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    hierarchy = _hierarchy()
    assert hierarchy is not None
    group = hierarchy / f"sdx-test-{os.getpid()}"
    group.mkdir()
    packages = sysconfig.get_path("purelib")
    apart = "unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child"
    enter = f'echo $$ > {group}/cgroup.procs && exec {apart} "$@"'
    boot = ["bash", "-c", BOOT, "boot", str(folder), str(ROOT), packages, str(_installation()), str(SYSTEMD)]
    errors = folder.with_suffix(".log")
    with errors.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *boot], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield _up(process, errors)
    finally:
        process.kill()
        process.wait()
        _remove(group)


def _up(process: subprocess.Popen[bytes], errors: Path) -> Machine:
    """The machine, once its process 1 has booted."""
    patience = Patience(BOOT_S)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while True:
        if process.poll() is not None:
            pytest.skip(f"systemd cannot be booted here: {errors.read_text().strip()[-300:]}")
        with suppress(OSError, LookupError):
            machine = Machine(int(children.read_text().split()[0]))
            if Path(f"/proc/{machine.pid}/exe").resolve() == SYSTEMD:
                found = machine.run("systemctl", "is-active", "basic.target").stdout.strip()
                if found == "active":
                    return machine
        assert not patience.is_over, f"systemd did not boot within {BOOT_S:.0f} s: {errors.read_text()[-2000:]}"
        time.sleep(POLL_S)


def _remove(group: Path) -> None:
    """Remove a control group with those in it, once their processes are gone."""
    patience = Patience(BOOT_S)
    while group.exists() and not patience.is_over:
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        time.sleep(POLL_S)
