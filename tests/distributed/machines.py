"""Two worker machines on one network: namespaces of Linux instead of machines.

The tests run in the hub, a network namespace with a bridge; ``in_own_network`` makes it. A machine has network, mount
and PID namespaces of its own: it reaches the hub's address and nothing else, sees neither the directory of the hub nor
that of the other machine, and its processes die with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

HUB = "10.213.0.1"
_BRIDGE = "hub"

# The first line of input says that the network is connected. $1: the machine's name; $2: its address; $3: the
# directories to hide, one a line.
_BOOT = """
read -r connected
set -e
ip link set lo up
ip link set eth0 up
ip address add "$2/24" dev eth0
echo "$1" > /proc/sys/kernel/hostname
printf '%s' "$3" | while IFS= read -r directory; do mount -t tmpfs none "$directory"; done
mount --make-rprivate / && mount -t proc proc /proc
shift 3
exec "$@"
"""


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=120)


def _namespace(kind: str, process: int | str = "self") -> Path:
    """Return the identity of a namespace of a process.

    :raises OSError: the process has ended.
    """
    return Path(f"/proc/{process}/ns/{kind}").readlink()


def make_hub() -> None:
    """Give this namespace the bridge that machines are connected to."""
    run("ip", "link", "add", _BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{HUB}/24", "dev", _BRIDGE)
    run("ip", "link", "set", _BRIDGE, "up")


class Machine:
    """One worker machine that runs one command until it is stopped or killed.

    :param number: from 1; its address ends with it.
    :param directory: its disk; the hub and the other machine have theirs beside it.
    """

    def __init__(self, number: int, directory: Path) -> None:
        self.name = f"worker-{number}"
        self.address = f"10.213.0.{number + 1}"
        self.directory = directory / self.name
        self.log = self.directory / "log"
        (self.directory / "tmp").mkdir(parents=True)
        self._number = number
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def start(self, argv: list[str], env: Mapping[str, str]) -> None:
        """Boot the machine and run the command in it."""
        hidden = [str(path) for path in self.directory.parent.iterdir() if path.is_dir() and path != self.directory]
        output: IO[bytes] = self._stack.enter_context(self.log.open("ab"))
        spaces = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        boot = ["sh", "-c", _BOOT, "sh", self.name, self.address, "".join(f"{path}\n" for path in hidden)]
        self._process = subprocess.Popen(
            [*spaces, *boot, *argv],
            env=dict(env),
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
        inner = self._first_process()
        # A killed machine's cable disappears with its namespace, some time after its last process.
        hub_end = f"{self.name[0]}{self._number}-{inner}"
        run("ip", "link", "add", hub_end, "type", "veth", "peer", "name", "eth0", "netns", str(inner))
        run("ip", "link", "set", hub_end, "master", _BRIDGE, "up")
        assert self._process.stdin
        self._process.stdin.write(b"connected\n")
        self._process.stdin.close()

    def _first_process(self) -> int:
        """Return the PID, as the hub sees it, of the machine's first process."""
        assert self._process
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for _ in range(12_000):  # of which each takes a hundredth of a second
            found = children.read_text().split()
            if found and _namespace("net", found[0]) != _namespace("net"):
                return int(found[0])
            time.sleep(0.01)
        raise RuntimeError(f"{self.name} did not start: {self.log.read_text(errors='replace')}")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> dict[int, str]:
        """Return the command lines of the machine's processes by the PIDs that the hub sees."""
        if not self.running:
            return {}
        namespace = _namespace("pid", self._first_process())
        found = {}
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and _namespace("pid", path.name) == namespace:
                    found[int(path.name)] = (
                        (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            except OSError:  # it ended
                continue
        return found

    def kill(self) -> None:
        """Switch the machine off: all its processes die by SIGKILL."""
        assert self._process
        os.kill(self._first_process(), signal.SIGKILL)
        self._process.wait(120)

    def stop(self) -> None:
        if self.running:
            self.kill()
        self._stack.close()


def python(*arguments: str) -> list[str]:
    """Return a command of this Python."""
    return [sys.executable, *arguments]
