"""Real children: sh, sleep, cat, python."""

from __future__ import annotations

import gc
import io
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from airflow_pgbackup.errors import Canceled, ConfigurationError, DeadlineExceeded, ToolError, ToolKilled
from airflow_pgbackup.postgres.tools.pipes import CHUNK
from airflow_pgbackup.postgres.tools.process import Cancel, ToolProcess, run_tool

ENV = {"PATH": os.defpath}


def sh(script: str, *arguments: str) -> list[str]:
    return ["sh", "-c", script, "sh", *arguments]


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(script), *arguments]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def group(pgid: int) -> list[int]:
    """Living members of a process group."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == pgid and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Assert that no test leaves a descriptor, a thread or a child, not even a zombie.

    Those of earlier tests of this process may end meanwhile.
    """

    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = descriptors(), children(), threads()
    yield
    eventually(lambda: descriptors() <= before[0] and children() <= before[1] and threads() <= before[2])


class Alarm(BaseException):
    """A BaseException, as AirflowTaskTimeout is."""


def raise_alarm() -> None:
    raise Alarm


@pytest.fixture
def alarm() -> Iterator[Callable[[float, Callable[[], None]], None]]:
    """``alarm(seconds, action)`` runs the action in a signal handler of the main thread."""
    actions: list[Callable[[], None]] = []
    old = signal.signal(signal.SIGALRM, lambda *_: actions[0]())

    def arm(seconds: float, action: Callable[[], None]) -> None:
        actions[:] = [action]
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


# -- the stream


def test_reads_are_full_until_the_end() -> None:
    with ToolProcess(sh("for i in 1 2 3 4 5; do printf abcd; sleep 0.02; done"), env=ENV) as process:
        assert process.stdout.read(8) == b"abcdabcd"
        assert process.stdout.read(8) == b"abcdabcd"
        assert process.stdout.read(8) == b"abcd"
        assert process.stdout.read(8) == b""
    assert process.returncode == 0


def test_all_of_a_large_output_arrives() -> None:
    with ToolProcess(sh("head -c 30000000 /dev/zero"), env=ENV) as process:
        sizes = [len(data) for data in iter(lambda: process.stdout.read(8 << 20), b"")]
    assert sizes == [8 << 20, 8 << 20, 8 << 20, 30_000_000 - 3 * (8 << 20)]


def test_its_lines_can_be_read_as_from_a_file() -> None:
    with ToolProcess(sh("printf 'one\\ntwo\\nthree'"), env=ENV) as process:
        assert list(io.BufferedReader(process.stdout)) == [b"one\n", b"two\n", b"three"]


def test_a_failure_is_a_read_error_instead_of_the_last_piece() -> None:
    with ToolProcess(sh("printf abcdefg; echo 'pg_dump: error: it broke' >&2; exit 3"), env=ENV) as process:
        assert process.stdout.read(4) == b"abcd"
        with pytest.raises(ToolError, match=r"^sh failed \(exit 3\): it broke$") as caught:
            process.stdout.read(4)
        assert caught.value.exit_code == 3
        assert caught.value.stderr == ["pg_dump: error: it broke"]
        for again in (lambda: process.stdout.read(4), process.stdout.read, process.wait):
            with pytest.raises(ToolError, match="it broke"):
                again()
    with pytest.raises(ToolError, match="it broke"):  # and again for a thread that reads later
        process.stdout.read(4)


def test_a_copy_of_a_failing_stream_fails() -> None:
    with (
        ToolProcess(sh("head -c 3000000 /dev/zero; exit 1"), env=ENV) as process,
        pytest.raises(ToolError, match="no error output"),
    ):
        shutil.copyfileobj(process.stdout, io.BytesIO())


def test_death_by_a_signal_is_an_error_of_its_own() -> None:
    with (
        ToolProcess(sh("echo pg_dump: dumping table film >&2; printf abc; kill -9 $$"), env=ENV) as process,
        pytest.raises(ToolKilled, match=r"^sh was killed by SIGKILL\. HINT") as caught,
    ):
        process.stdout.read()
    assert caught.value.exit_code == -signal.SIGKILL
    assert process.returncode == -signal.SIGKILL
    assert "memory" in str(caught.value.hint)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.message, copy.exit_code, copy.tool) == (caught.value.message, -9, "sh")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGPIPE, signal.SIGRTMIN])
def test_every_signal_differs_from_an_exit_status(number: int) -> None:
    with pytest.raises(ToolKilled) as caught:
        run_tool(sh(f"kill -{int(number)} $$"), env=ENV)
    assert caught.value.exit_code == -number


def test_killed_while_it_is_read() -> None:
    with ToolProcess(sh("echo start; exec sleep 3600"), env=ENV) as process:
        assert process.stdout.read(6) == b"start\n"
        tool = next(pid for pid in group(process.pid) if pid != process.pid)
        threading.Timer(0.2, os.kill, (tool, signal.SIGKILL)).start()
        with pytest.raises(ToolKilled, match="SIGKILL"):
            process.stdout.read(1)


def test_killing_the_leader_kills_the_tool() -> None:
    with ToolProcess(sh("echo start; exec sleep 3600"), env=ENV) as process:
        process.stdout.read(6)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(ToolKilled):
            process.stdout.read(1)
    eventually(lambda: group(process.pid) == [])


def test_devnull_output() -> None:
    with ToolProcess(sh("head -c 3000000 /dev/zero; exit 4"), env=ENV, stdout="devnull") as process:
        with pytest.raises(RuntimeError, match="not piped"):
            _ = process.stdout
        with pytest.raises(ToolError, match="exit 4"):
            process.wait()


def test_wait_discards_unread_output() -> None:
    with ToolProcess(sh("head -c 3000000 /dev/zero"), env=ENV) as process:
        process.wait()
    assert process.returncode == 0


def test_run_tool_returns_the_output_and_has_a_limit() -> None:
    assert run_tool(["echo", "$(id); `id`"], env=ENV) == b"$(id); `id`\n"
    assert run_tool(sh("printf 12345"), env=ENV, limit=5) == b"12345"
    with pytest.raises(ToolError) as raised:
        run_tool(sh("printf 12345; exec sleep 3600"), env=ENV, limit=4)
    error = raised.value
    assert (error.message, error.tool, error.exit_code) == ("sh wrote more than 4 bytes", "sh", None)


def test_there_is_no_output_and_no_process_outside_of_the_with() -> None:
    process = ToolProcess(["true"], env=ENV)
    with pytest.raises(RuntimeError, match=r"^this ToolProcess is not running, or its stdout is not piped$"):
        _ = process.stdout
    with pytest.raises(RuntimeError, match=r"^this ToolProcess is not running$"):
        _ = process.pid


def test_the_pipes_hold_a_large_piece() -> None:
    sizes = "import fcntl; print(*(fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) for pipe in (0, 1)))"
    assert run_tool(python(sizes), env=ENV, stdin=io.BytesIO(b"x")).split() == [str(CHUNK).encode()] * 2


def test_the_umask_can_be_that_of_the_caller(tmp_path: Path) -> None:
    with ToolProcess(sh("touch file; stat -c %a file"), env=ENV, cwd=tmp_path, umask=0o027) as process:
        assert process.stdout.read() == b"640\n"


def test_a_tool_in_a_sandbox_that_exits_above_128_was_killed() -> None:
    with (
        ToolProcess(["sh", "-c", "exit 137"], env=ENV, within=["env", "A=1"]) as process,
        pytest.raises(ToolKilled, match=r"^sh was killed by SIGKILL\."),
    ):
        process.wait()


def test_no_such_program() -> None:
    with pytest.raises(ToolError, match="cannot run /nowhere/pg_dump: No such file") as caught:
        run_tool(["/nowhere/pg_dump"], env=ENV)
    assert caught.value.tool == "pg_dump"
    assert caught.value.hint


# -- the tool's environment


def test_the_child_sees_its_own_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", "postgres://u:secret@h/d")
    names = {line.partition(b"=")[0] for line in run_tool(["env"], env={**ENV, "PGHOST": "h"}).splitlines()}
    assert names <= {b"PATH", b"PGHOST", b"LC_CTYPE"}  # Python adds LC_CTYPE (PEP 538)


def test_no_input_no_terminal_no_core_private_files(tmp_path: Path) -> None:
    script = "cat; ulimit -c; touch file; stat -c %a file; ls /proc/self/fd | wc -l; trap - PIPE; trap"
    with ToolProcess(sh(script), env=ENV, cwd=tmp_path) as process:
        lines = process.stdout.read().decode().split()
        assert lines == ["0", "600", "4"]  # 0, 1, 2 and one of ls itself
    assert (tmp_path / "file").exists()


def test_it_leads_a_session_of_its_own() -> None:
    out = run_tool(python("import os; print(os.getsid(0), os.getpgid(0), os.getppid())"), env=ENV)
    session, process_group, leader = map(int, out.split())
    assert session == process_group == leader
    assert session != os.getsid(0)


def test_a_file_size_limit_is_an_error_with_a_name(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="File too large") as caught:
        run_tool(sh('ulimit -f 8; head -c 1000000 /dev/zero > "$1"', str(tmp_path / "file")), env=ENV)
    assert "ulimit -f" in str(caught.value.hint)


# -- stopping


# None of these tools ends without being stopped, so no test needs to measure how long that takes.
IGNORES_TERM = "trap '' TERM; echo start; while :; do sleep 0.05; done"


def test_cancel_from_another_thread() -> None:
    cancel = Cancel()
    with ToolProcess(sh("echo start; exec sleep 3600"), env=ENV, cancel=cancel) as process:
        process.stdout.read(6)
        threading.Timer(0.1, cancel.set).start()
        with pytest.raises(Canceled, match=r"^sh was stopped: the task was asked to stop$"):
            process.stdout.read(1)


def test_cancel_of_a_tool_that_ignores_term() -> None:
    cancel = Cancel()
    with ToolProcess(sh(IGNORES_TERM), env=ENV, cancel=cancel) as process:
        process.stdout.read(6)
        cancel.set()
        with pytest.raises(Canceled):
            process.stdout.read(1)
    eventually(lambda: group(process.pid) == [])


def test_setting_the_flag_waits_for_no_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler sets it, and must return at once."""
    monkeypatch.setattr("airflow_pgbackup.postgres.tools.watchdog.KILL_AFTER", 3600.0)
    cancel = Cancel()
    with ToolProcess(sh(IGNORES_TERM), env=ENV, cancel=cancel) as process:
        process.stdout.read(6)
        cancel.set()
        assert process.returncode is None
        assert group(process.pid)
        os.killpg(process.pid, signal.SIGKILL)


def test_cancel_in_a_signal_handler_while_the_main_thread_reads(alarm: Callable[..., None]) -> None:
    cancel = Cancel()
    with ToolProcess(sh("echo start; exec sleep 3600"), env=ENV, cancel=cancel) as process:
        process.stdout.read(6)
        alarm(0.1, cancel.set)
        with pytest.raises(Canceled):
            process.stdout.read(1)


def test_canceled_even_if_the_tool_exits_with_0() -> None:
    cancel = Cancel()
    with ToolProcess(sh("trap 'exit 0' TERM; echo start; while :; do sleep 0.05; done"), env=ENV, cancel=cancel) as p:
        p.stdout.read(6)
        cancel.set()
        with pytest.raises(Canceled):
            p.stdout.read(1)


def test_nothing_starts_once_canceled(tmp_path: Path) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Canceled):
        run_tool(["touch", str(tmp_path / "file")], env=ENV, cancel=cancel)
    assert not (tmp_path / "file").exists()


def test_deadline() -> None:
    for deadline in (0.3, 3, 60):  # a busy machine may not have started the tool by the first
        with pytest.raises(DeadlineExceeded) as raised:
            run_tool(sh("echo working >&2; exec sleep 3600"), env=ENV, deadline=deadline)
        error = raised.value
        assert error.message == f"sh was still running at its deadline of {deadline} s and was stopped"
        if error.stderr:
            break
    assert error.hint == "Raise the deadline, or find out what it waited for, such as a lock."
    assert (error.tool, error.exit_code, error.stderr) == ("sh", -signal.SIGTERM, ["working"])


def test_deadline_of_a_tool_that_ignores_term() -> None:
    with pytest.raises(DeadlineExceeded):
        run_tool(sh(IGNORES_TERM), env=ENV, deadline=0.3)


def test_deadline_of_a_tool_that_closed_its_output_but_runs_on() -> None:
    with pytest.raises(DeadlineExceeded):
        run_tool(sh("exec >&- 2>&-; exec sleep 3600"), env=ENV, deadline=0.3)


def test_a_process_outside_the_group_that_holds_the_pipe_does_not_delay_the_end(tmp_path: Path) -> None:
    """A process that left the group is not killed; it must not delay the error beyond the deadline."""
    # The tool ends once the other process has left its group, on a slow machine after the first deadline.
    leave = """touch "$1"; echo $$ >&2; exec sleep 300"""
    script = f"""setsid sh -c '{leave}' sh "$1" & until [ -e "$1" ]; do sleep 0.01; done; printf abc"""
    strangers: list[str] = []
    try:
        for deadline in (2, 30):
            left = str(tmp_path / str(deadline))
            with pytest.raises(DeadlineExceeded):
                run_tool(sh(script, left), env=ENV, deadline=deadline, on_line=strangers.append)
            if strangers:
                break
    finally:
        for pid in strangers:
            if b"sleep\x00300" in Path(f"/proc/{pid}/cmdline").read_bytes():  # or another process has its number now
                os.kill(int(pid), signal.SIGKILL)
    assert len(strangers) == 1


@pytest.mark.parametrize("script", ["echo start; exec sleep 3600", IGNORES_TERM])
def test_an_exception_inside_the_with_signals_before_it_waits(script: str) -> None:
    process = ToolProcess(sh(script), env=ENV)

    def scenario() -> None:
        with process:
            process.stdout.read(6)
            raise Alarm

    with pytest.raises(Alarm):
        scenario()
    eventually(lambda: group(process.pid) == [])


@pytest.mark.parametrize("stdout", ["pipe", "devnull"])
def test_a_signal_that_does_not_wake_the_main_thread(
    alarm: Callable[..., None], stdout: Literal["pipe", "devnull"]
) -> None:
    """A signal that comes just before a call blocks wakes nobody, as one that another thread receives."""
    cancel = Cancel()
    alarm(3600, cancel.set)

    lines = []

    def interrupt(line: str) -> None:
        lines.append(line)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    script = "echo waiting >&2; sleep 60; echo ended >&2"
    with (
        ToolProcess(sh(script), env=ENV, cancel=cancel, stdout=stdout, on_line=interrupt) as process,
        pytest.raises(Canceled),
    ):
        process.wait()
    assert lines == ["waiting"]


def test_a_timeout_raised_in_the_middle_of_a_read(alarm: Callable[..., None]) -> None:
    process = ToolProcess(["sleep", "3600"], env=ENV)

    def scenario() -> None:
        with process:
            alarm(0.2, raise_alarm)
            process.stdout.read(1)

    with pytest.raises(Alarm):
        scenario()
    eventually(lambda: group(process.pid) == [])


def test_a_second_interrupt_while_it_stops_kills_at_once(
    alarm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_pgbackup.postgres.tools.watchdog.KILL_AFTER", 3600.0)
    alarm(3600, raise_alarm)
    main = threading.get_ident()
    script = "trap 'echo stopping >&2' TERM; echo start; while :; do sleep 0.05; done"

    def interrupt(line: str) -> None:
        signal.pthread_kill(main, signal.SIGALRM)

    process = ToolProcess(sh(script), env=ENV, on_line=interrupt)

    def scenario() -> None:
        with process:
            process.stdout.read(6)
            raise KeyboardInterrupt

    with pytest.raises(Alarm):
        scenario()
    eventually(lambda: group(process.pid) == [])


def test_leaving_early_stops_the_tool_without_an_error() -> None:
    with ToolProcess(["yes"], env=ENV) as process:
        assert process.stdout.read(4) == b"y\ny\n"
    assert process.returncode is not None
    with pytest.raises(Canceled, match=r"^yes was stopped before its end$"):
        process.stdout.read(1)


def test_a_thread_that_is_reading_when_the_with_ends_gets_an_error() -> None:
    """boto3 reads in a thread; it must not take the end of the ``with`` for the end of the dump."""
    caught: list[BaseException] = []

    def read(process: ToolProcess) -> None:
        try:
            process.stdout.read(1 << 30)
        except Canceled as error:
            caught.append(error)

    with ToolProcess(sh("echo start; exec sleep 3600"), env=ENV) as process:
        reader = threading.Thread(target=read, args=(process,))
        reader.start()
        time.sleep(0.2)
    reader.join(60)
    assert len(caught) == 1


def test_grandchildren_are_stopped_too() -> None:
    cancel = Cancel()
    script = "(trap '' TERM; while :; do sleep 0.05; done) & sleep 3600 & echo start; wait"
    with ToolProcess(sh(script), env=ENV, cancel=cancel) as process:
        process.stdout.read(6)
        assert len(group(process.pid)) >= 4  # leader, tool, two of its own
        cancel.set()
        with pytest.raises(Canceled):
            process.stdout.read()
        eventually(lambda: group(process.pid) == [])


def test_processes_that_a_tool_leaves_behind_are_killed() -> None:
    """As it leaves workers of pg_dump --jobs when their leader is killed."""
    with ToolProcess(sh("sleep 3600 >/dev/null 2>&1 & echo done"), env=ENV) as process:
        assert process.stdout.read() == b"done\n"
        eventually(lambda: group(process.pid) == [])


def test_nothing_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    script = """
        import sys, time
        from airflow_pgbackup.postgres.tools.process import ToolProcess
        # a tool with a child of its own, both ignoring TERM, one of them started by a thread that still runs
        tool = "trap '' TERM; (while :; do sleep 0.05; done) & echo start; while :; do sleep 0.05; done"
        with ToolProcess(["sh", "-c", tool], env={"PATH": "/usr/bin:/bin"}) as process:
            process.stdout.read(6)
            print(process.pid, flush=True)
            time.sleep(3600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        leader = int(worker.stdout.readline())
        assert len(group(leader)) >= 3
        worker.kill()
    eventually(lambda: group(leader) == [])


def test_the_end_of_the_thread_that_started_a_tool_does_not_stop_it() -> None:
    """The kernel sends the signal of PR_SET_PDEATHSIG then."""
    process = ToolProcess(sh("sleep 0.5; echo done"), env=ENV)
    starter = threading.Thread(target=process.__enter__)
    starter.start()
    starter.join()
    try:
        assert process.stdout.read() == b"done\n"
    finally:
        process.__exit__(None, None, None)


def test_signals_that_this_thread_blocks_reach_the_tool() -> None:
    blocked = {signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        with ToolProcess(
            sh("trap 'echo term; exit 0' TERM; echo start; while :; do sleep 0.05; done"), env=ENV
        ) as process:
            process.stdout.read(6)
            os.killpg(process.pid, signal.SIGTERM)
            assert process.stdout.read() == b"term\n"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_an_exit_status_that_other_code_took_is_not_a_success() -> None:
    with ToolProcess(sh("echo odd >&2; sleep 0.1; exit 1"), env=ENV) as process:
        os.waitpid(process.pid, 0)
        with pytest.raises(ToolError) as raised:
            process.wait()
    error = raised.value
    assert error.message == "sh ended, but its exit status is lost: other code in this process has collected it"
    assert (error.tool, error.exit_code, error.stderr) == ("sh", None, ["odd"])


# -- standard input


def test_the_complete_input_reaches_the_tool() -> None:
    data = os.urandom(5_000_000)
    with ToolProcess(["cat"], env=ENV, stdin=io.BytesIO(data)) as process:
        assert process.stdout.read() == data


def test_a_tool_can_stop_reading_its_input() -> None:
    assert run_tool(sh("head -c 5"), env=ENV, stdin=io.BytesIO(b"12345" + bytes(10_000_000))) == b"12345"
    with pytest.raises(ToolError, match="exit 7"):
        run_tool(sh("exit 7"), env=ENV, stdin=io.BytesIO(bytes(10_000_000)))


def test_an_input_that_fails_never_looks_complete(tmp_path: Path) -> None:
    """At the end of its input psql -1 commits what it has read."""

    class Broken:
        reads = 0

        def read(self, size: int = -1, /) -> bytes:
            self.reads += 1
            if self.reads > 3:
                raise ConnectionResetError("the store hung up")
            return bytes(100_000)

    with pytest.raises(ConnectionResetError, match="the store hung up"):
        run_tool(sh('trap "" TERM; cat > /dev/null; touch "$1"', str(tmp_path / "committed")), env=ENV, stdin=Broken())
    assert not (tmp_path / "committed").exists()


# -- standard error


def test_lines_arrive_while_the_tool_runs_and_the_tail_is_kept(tmp_path: Path) -> None:
    """The tool goes on once its first line has arrived."""
    lines: list[str] = []
    arrived = tmp_path / "arrived"

    def on_line(line: str) -> None:
        lines.append(line)
        arrived.touch()

    script = 'echo one >&2; until [ -e "$1" ]; do sleep 0.01; done; echo two >&2; printf three >&2'
    with ToolProcess(sh(script, str(arrived)), env=ENV, on_line=on_line) as process:
        process.wait()
        assert process.stderr_tail == ["one", "two", "three"]
    assert lines == ["one", "two", "three"]


def test_quoted_statements_and_rows_reach_neither_log_nor_error() -> None:
    lines: list[str] = []
    script = """cat >&2 <<'END'
pg_restore: error: COPY failed for table "t": ERROR:  duplicate key value violates unique constraint "t_pkey"
DETAIL:  Key (card)=(4111 1111) already exists.
CONTEXT:  COPY t, line 1
pg_restore: error: could not execute query: ERROR:  relation "t" already exists
Command was: CREATE SERVER s OPTIONS (
    password 'hunter2'
);

pg_restore: warning: errors ignored on restore: 2
END
exit 1"""
    with pytest.raises(ToolError) as caught:
        run_tool(sh(script), env=ENV, on_line=lines.append)
    assert caught.value.message == 'sh failed (exit 1): could not execute query: ERROR:  relation "t" already exists'
    assert caught.value.stderr == lines
    assert [line.split()[1] for line in lines] == ["error:", "Key", "error:", "warning:"]
    assert lines[1] == "DETAIL:  Key (card)=(…) already exists."
    assert "4111" not in str(lines)
    assert "hunter2" not in str(lines)


def test_an_error_has_the_detail_and_the_hint_of_the_server() -> None:
    script = """cat >&2 <<'END'
pg_restore: error: could not execute query: ERROR:  could not create unique index "u"
DETAIL:  Key (lower(a))=(4111) =(1111) is duplicated.
HINT:  Look for it.
Command was: CREATE UNIQUE INDEX u ON t (lower(a));
END
exit 1"""
    with pytest.raises(ToolError) as caught:
        run_tool(sh(script), env=ENV)
    assert caught.value.message == (
        'sh failed (exit 1): could not execute query: ERROR:  could not create unique index "u" '
        "(Key (lower(a))=(…) is duplicated)"
    )
    assert caught.value.hint == "Look for it"


def test_a_slow_log_gets_every_line() -> None:
    lines: list[str] = []

    def on_line(line: str) -> None:
        time.sleep(0.01)
        lines.append(line)

    with ToolProcess(sh("seq 200 >&2"), env=ENV, on_line=on_line) as process:
        process.wait()
    assert lines == [str(number) for number in range(1, 201)]


def test_a_flood_of_stderr_blocks_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ToolProcess(sh("head -c 50000000 /dev/zero >&2; yes | head -c 500000 >&2; echo end"), env=ENV) as process:
        assert process.stdout.read() == b"end\n"
        assert len(process.stderr_tail) == 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_log_that_fails_does_not_stop_the_tool_but_is_reported() -> None:
    def on_line(line: str) -> None:
        raise OSError("the log is full")

    with ToolProcess(sh("yes | head -c 1000000 >&2; echo end"), env=ENV, on_line=on_line) as process:
        with pytest.raises(OSError, match="the log is full"):
            process.stdout.read()
        assert process.returncode == 0


# -- Cancel


def test_cancel_flag() -> None:
    calls: list[str] = []
    cancel = Cancel()
    cancel.check()

    def fail() -> None:
        raise ValueError("one of them")

    cancel.on_set(lambda: calls.append("first"))
    cancel.on_set(fail)
    unregister = cancel.on_set(lambda: calls.append("gone"))
    unregister()
    unregister()
    assert not cancel.is_set()
    with pytest.raises(ValueError, match="one of them"):
        cancel.set()
    assert cancel.is_set()
    assert calls == ["first"]
    cancel.on_set(lambda: calls.append("late"))
    assert calls == ["first", "late"]
    with pytest.raises(Canceled, match="asked to stop"):
        cancel.check()


FED = """
import threading, time
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.tools.process import ToolProcess
class Endless:
    def read(self, size=-1):
        time.sleep(3600)
for _ in range(5):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
env = client_environment(ConnectionParams(keywords={"host": "h"}, password="secret"))
with ToolProcess(["/bin/sh", "-c", "cat; exit 1"], env=env, stdin=Endless()) as process:
    print("runs", flush=True)
    process.wait()
"""


def test_a_source_that_hangs_does_not_keep_the_worker_alive() -> None:
    script = FED.replace("cat; exit 1", "exit 3")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert "ToolError: sh failed (exit 3)" in ended.stderr


def test_a_tool_that_fails_because_its_worker_was_killed_leaves_no_private_directory(tmp_path: Path) -> None:
    """Its input ends when the worker dies, a moment before its leader can notice that."""
    folders = [tmp_path / str(number) for number in range(12)]
    workers = []
    for folder in folders:
        folder.mkdir()
        env = {**os.environ, "TMPDIR": str(folder)}
        workers.append(subprocess.Popen([sys.executable, "-c", FED], env=env, stdout=subprocess.PIPE))
    for worker in workers:
        with worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"runs\n"
            worker.kill()
    end = time.monotonic() + 120
    while (left := list(tmp_path.glob("*/*"))) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


STARTS = {
    "fork": "import os; os._exit(0) if os.fork() == 0 else os.wait()",
    "vfork": "import subprocess; subprocess.run(['true'], check=True)",
    "posix_spawn": "import os; os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "system": "import os, sys; os.system('true') and sys.exit('Operation not permitted')",
    "popen": "import ctypes, sys; ctypes.CDLL(None).popen(b'true', b'r') or sys.exit('Operation not permitted')",
}


@pytest.mark.parametrize("way", STARTS)
def test_a_tool_that_may_not_start_processes_cannot(way: str) -> None:
    run_tool(python(STARTS[way]), env=ENV)
    with (
        pytest.raises(ToolError, match="Operation not permitted"),
        ToolProcess(python(STARTS[way]), env=ENV, may_start_processes=False) as process,
    ):
        process.wait()


def test_a_tool_that_may_not_start_processes_has_threads() -> None:
    script = "import threading; t = threading.Thread(target=print, args=['from a thread']); t.start(); t.join()"
    with ToolProcess(python(script), env=ENV, may_start_processes=False) as process:
        assert process.stdout.read() == b"from a thread\n"


def test_where_the_kernel_cannot_prevent_it_the_tool_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "#1", "riscv64")))
    with pytest.raises(ConfigurationError, match=r"no seccomp filter for Linux on riscv64"):
        ToolProcess(["true"], env=ENV, may_start_processes=False)


FIRST_PROCESS = """
import ctypes, os, sys
from airflow_pgbackup import supervision
from airflow_pgbackup.postgres.tools.process import run_tool

supervision.adopt_orphans()
for _ in range(3):
    run_tool(sys.argv[1:], env={"PATH": os.defpath})
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no children")
"""


def test_a_worker_without_standard_streams(tmp_path: Path) -> None:
    """As of ``pgbackup … <&- >&-``: the pipe to the leader must not get the number of one of them."""
    out = tmp_path / "out"
    script = """
        import os, sys
        from pathlib import Path
        from airflow_pgbackup.postgres.tools.process import run_tool
        os.closerange(0, 3)
        Path(sys.argv[1]).write_bytes(run_tool(["echo", "it ran"], env={"PATH": os.defpath}))
    """
    subprocess.run(python(script, str(out)), check=False, timeout=120)
    assert out.read_text() == "it ran\n"


@pytest.mark.parametrize("what", ["process", "thread"])
def test_a_worker_at_its_limit_of_processes(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "no more") if what == "process" else RuntimeError("no more")

    if what == "process":
        monkeypatch.setattr(subprocess, "Popen", refused)
    else:
        monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(ToolError, match="cannot start echo: no more") as caught:
        run_tool(["echo"], env=ENV)
    assert "pids limit" in str(caught.value.hint)


def test_a_tool_that_ends_before_its_child_leaves_no_zombie_to_the_first_process_of_a_container() -> None:
    """``bwrap`` does so each time, and a worker that is the first process reaps only its own children."""
    first = subprocess.run(
        [sys.executable, "-c", FIRST_PROCESS, *sh("sleep 60 & exit 0")], capture_output=True, text=True, check=True
    )
    assert first.stdout == "no children\n"
