"""Run a function of this package on changed inputs, and keep those that reach code that no input reached before.

Whatever the input, the function returns or raises a documented error with a short, printable message, and stays within
limits of time and memory.
"""

from __future__ import annotations

import inspect
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

from campaign.fuzzing.mutations import Mutator

from airflow_pgbackup.errors import MappingError, PgBackupError

MOST_SECONDS = 30.0
"""CPU time of one execution; inputs have at most 64 KiB."""
MOST_GROWTH = 256 << 10
"""KiB by which one execution may raise the most memory that the process ever had."""
_LONGEST_LINE = 5000
_MOST_CORPUS = 2000


class Violation(AssertionError):
    """What must hold did not."""


@dataclass(frozen=True)
class Target:
    """A function that takes input from outside.

    :param name: on the command line.
    :param seeds: returns valid inputs.
    :param mutate: changes one.
    :param run: takes an input; returns what came of it, in one or two words. Raises :class:`Violation`.
    :param refusals: classes of the errors that it may raise.
    :param modules: whose lines guide the choice of inputs and are counted.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator
    run: Callable[[bytes], str]
    refusals: tuple[type[PgBackupError], ...]
    modules: tuple[str, ...]


def execute(target: Target, data: bytes) -> str:
    """Run one input and return what came of it.

    :raises Violation: what must hold did not.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    try:
        with _limit_of_time():
            outcome = target.run(data)
    except Violation:
        raise
    except target.refusals as error:
        _check_error(error)
        outcome = f"refused: {type(error).__name__}"
    except Exception as error:
        where = _place(error)
        raise Violation(f"{type(error).__name__} at {where}: {str(error)[:200]}") from error
    if (took := time.process_time() - began) > MOST_SECONDS:
        raise Violation(f"took {took:.0f} s of CPU time")
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MOST_GROWTH:
        raise Violation(f"took {grown >> 10} MiB of memory")
    return outcome


def _check_error(error: PgBackupError) -> None:
    lines = str(error).split("\n") if isinstance(error, MappingError) else [str(error)]
    for line in lines:
        if not line.strip() or not all(c.isprintable() or (c.isspace() and c not in "\n\r\v\f") for c in line):
            raise Violation(f"a message that is empty or not printable: {line[:100]!r}")
        if len(line) > _LONGEST_LINE:
            raise Violation(f"a message of {len(line)} characters: {line[:100]!r}…")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"


@contextmanager
def _limit_of_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Violation(f"still running after {MOST_SECONDS:.0f} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Reached:
    """The steps from line to line in some modules that were taken while :meth:`tracing`."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._codes: dict[CodeType, frozenset[int]] = {}
        self._files = {str(import_module(module).__file__) for module in modules}
        for module in modules:
            source = import_module(module)
            for code in _codes(compile(inspect.getsource(source), str(source.__file__), "exec")):
                self._codes[code] = frozenset(line for *_, line in code.co_lines() if line)
        self.now: set[tuple[int, int, int]] = set()
        self.ever: set[tuple[int, int, int]] = set()
        self._lines: set[tuple[str, int]] = set()
        self._last: dict[int, int] = {}

    @contextmanager
    def tracing(self) -> Iterator[None]:
        self.now = set()
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def is_new(self) -> bool:
        """Return whether the last input took a step for the first time, and remember its steps."""
        new = not self.now <= self.ever
        self.ever |= self.now
        return new

    def lines(self) -> tuple[int, int]:
        """Return how many lines of the functions of the modules were reached, and how many they have."""
        every = {
            (code.co_filename, line)
            for code, lines in self._codes.items()
            for line in lines
            if code.co_flags & inspect.CO_OPTIMIZED and line != code.co_firstlineno  # the body of a function
        }
        return len(every & self._lines), len(every)

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        self._last[id(frame)] = 0
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            line = frame.f_lineno
            self.now.add((hash(frame.f_code), self._last.get(id(frame), 0), line))
            self._last[id(frame)] = line
            self._lines.add((frame.f_code.co_filename, line))
        elif event == "return":
            self._last.pop(id(frame), None)
        return self._line


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@dataclass
class Found:
    """What a run of a target found."""

    executions: int = 0
    seconds: float = 0.0
    corpus: int = 0
    lines: tuple[int, int] = (0, 0)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: dict[str, bytes] = field(default_factory=dict)
    """The smallest input for each."""


def fuzz(
    target: Target,
    *,
    seed: int,
    seconds: float | None = None,
    executions: int | None = None,
    before: Callable[[bytes], object] = lambda data: None,
) -> Found:
    """Run changed inputs until the time or their number is over.

    :param before: called with each input before it runs, so that it is known if the process does not survive it.
    """
    random = Random(seed)
    reached, found = Reached(target.modules), Found()
    corpus = list(target.seeds())
    began = time.monotonic()

    def run(data: bytes) -> None:
        before(data)
        found.executions += 1
        try:
            with reached.tracing():
                outcome = execute(target, data)
        except Violation as violation:
            what = str(violation)
            found.outcomes["violation"] += 1
            if what not in found.violations and len(found.violations) < 50:
                found.violations[what] = smallest(target, data, what)
        else:
            found.outcomes[outcome] += 1
            new = reached.is_new() or (outcome.startswith("accepted") and random.randrange(20) == 0)
            if new and data not in corpus and len(corpus) < _MOST_CORPUS:
                corpus.append(data)

    for data in list(corpus):
        run(data)
        reached.is_new()
    while (seconds is None or time.monotonic() - began < seconds) and (
        executions is None or found.executions < executions
    ):
        # Half of the time one of the newest, which reached something new.
        data = random.choice(corpus[-20:] if random.randrange(2) else corpus)
        run(target.mutate(random, data, corpus))
    found.seconds = time.monotonic() - began
    found.corpus, found.lines = len(corpus), reached.lines()
    return found


def smallest(target: Target, data: bytes, what: str, *, most: int = 300) -> bytes:
    """Return a smaller input with the same violation: without each of its pieces in turn that it does not need."""
    size = len(data) // 2
    while size and most:
        at = 0
        while at < len(data) and most:
            most -= 1
            shorter = data[:at] + data[at + size :]
            try:
                execute(target, shorter)
            except Violation as violation:
                if str(violation) == what:
                    data = shorter
                    continue
            at += size
        size //= 2
    return data
