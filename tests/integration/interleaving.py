"""Run verbs concurrently, one step at a time, in an order that a test chooses, so that each run can be repeated.

Each actor has a thread of its own, and only one of the threads runs at any time. A step begins at a call of
:func:`step`, where the thread waits for its turn; :mod:`memory_store` calls it before each read and change of the
store. Thread pools of an actor are part of the step that started them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = ("refused", "lost", "late", "killed")
"""Of a step: an error, not executed; an error, but executed; an error, executed later; the actor is killed."""

_here = threading.local()


class Killed(BaseException):
    """Like SIGKILL: the actor's ``finally`` blocks change nothing either."""


@dataclass(frozen=True)
class Fault:
    """:param at: the number of the actor's step, from 1. :param kind: one of :data:`KINDS`."""

    at: int
    kind: str


@dataclass
class Actor:
    """:ivar steps: its steps so far. :ivar value: the result of its action. :ivar error: the error that it raised."""

    name: str
    action: Callable[[], Any]
    fault: Fault | None = None
    steps: list[str] = field(default_factory=list)
    value: Any = None
    error: BaseException | None = None
    ended: bool = False
    dead: bool = False
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def succeeded(self) -> bool:
        return self.ended and self.error is None


def step(what: str) -> str | None:
    """Wait for this actor's turn, and return the kind of fault to inject, or None. Other threads do not wait."""
    actor: Actor | None = getattr(_here, "actor", None)
    if actor is None:
        return None
    if actor.dead:
        raise Killed
    actor.waits.release()
    actor.turn.acquire()
    actor.steps.append(what)
    kind = actor.fault.kind if actor.fault and actor.fault.at == len(actor.steps) else None
    if kind == "killed":
        actor.dead = True
        raise Killed
    return kind


@dataclass
class World:
    """The start of a run.

    :ivar actions: actor's name to its action.
    :ivar at_success: called with the actor when its action has returned, before any other actor runs.
    """

    actions: Mapping[str, Callable[[], Any]]
    at_success: Callable[[Actor], None] = lambda actor: None


@dataclass(frozen=True)
class Run:
    """:ivar order: for each step, the actors that could run, and the one that did."""

    actors: Mapping[str, Actor]
    order: Sequence[tuple[tuple[str, ...], str]]

    def __str__(self) -> str:
        steps = {name: iter(["begins", *actor.steps]) for name, actor in self.actors.items()}
        lines = [f"{chosen}: {next(steps[chosen], '')}" for _, chosen in self.order]
        ends = [f"{actor.name} ended: {actor.error or actor.value!r}" for actor in self.actors.values()]
        return "\n".join(["", *lines, *ends])


def run(
    world: World, choose: Callable[[tuple[str, ...], str | None], str], faults: Mapping[str, Fault] | None = None
) -> Run:
    """Run all actors to their end.

    :param choose: returns the next actor, given those that can run and the one that ran last.
    """
    actors = {name: Actor(name, action, (faults or {}).get(name)) for name, action in world.actions.items()}
    threads = [threading.Thread(target=_act, args=(actor, world), daemon=True) for actor in actors.values()]
    for thread in threads:
        thread.start()
    order: list[tuple[tuple[str, ...], str]] = []
    last = None
    for actor in actors.values():
        actor.waits.acquire()
    while options := tuple(name for name, actor in actors.items() if not actor.ended):
        last = choose(options, last)
        order.append((options, last))
        actors[last].turn.release()
        actors[last].waits.acquire()
    for thread in threads:
        thread.join()
    return Run(actors, order)


def _act(actor: Actor, world: World) -> None:
    actor.waits.release()
    actor.turn.acquire()
    _here.actor = actor
    try:
        actor.value = actor.action()
    except BaseException as error:
        actor.error = error
    finally:
        _here.actor = None
    try:
        if actor.error is None:
            world.at_success(actor)
    except AssertionError as error:
        actor.error = error
    finally:
        actor.ended = True
        actor.waits.release()


def every_order(make: Callable[[], World], *, switches: int) -> Iterator[Run]:
    """Yield a run for every order with at most `switches` changes to another actor while the last one could run."""
    pending: list[tuple[str, ...]] = [()]
    while pending:
        forced = pending.pop()
        done = run(make(), _first(forced))
        yield done
        chosen = [name for _, name in done.order]
        used = 0
        for number, (options, name) in enumerate(done.order):
            could_go_on = number > 0 and chosen[number - 1] in options
            if number >= len(forced) and used + could_go_on <= switches:
                pending += [(*chosen[:number], other) for other in options if other != name]
            used += could_go_on and chosen[number - 1] != name


def _first(names: Sequence[str]) -> Callable[[tuple[str, ...], str | None], str]:
    """Return a chooser of these actors in order; after them, of the one that ran last."""
    todo = iter(names)

    def choose(options: tuple[str, ...], last: str | None) -> str:
        return next(todo, None) or (last if last in options else options[0])

    return choose


def in_order(picks: Sequence[int]) -> Callable[[tuple[str, ...], str | None], str]:
    """Return a chooser by index, modulo the number of actors that can run; after them, of the one that ran last."""
    todo = iter(picks)

    def choose(options: tuple[str, ...], last: str | None) -> str:
        pick = next(todo, None)
        if pick is None:
            return last if last in options else options[0]
        return options[pick % len(options)]

    return choose
