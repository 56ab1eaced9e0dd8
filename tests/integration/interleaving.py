"""Verbs that run at once, one step at a time, in an order that a test decides: every run of an order is the same.

Each actor has a thread of its own, and no two of them ever run. What is a step says so by :func:`step`, as
:mod:`memory_store` does before every look at, and change of, the store: there the thread waits for its turn. Pools of
an actor are part of the step in which they were started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = ("refused", "lost", "late", "killed")
"""Not done, and an error; done, and an error; an error, and done after all; the actor does nothing any more."""

_here = threading.local()


class Killed(BaseException):
    """As kill -9: what an actor does on its way out has no effect either."""


@dataclass(frozen=True)
class Fault:
    """:param at: the number of a step of one actor, from 1. :param kind: one of :data:`KINDS`."""

    at: int
    kind: str


@dataclass
class Actor:
    """:ivar steps: what it did. :ivar value: what it returned. :ivar error: what it raised."""

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
    """Wait for the turn; the kind of fault that happens now, if one does. Outside of an actor's own thread, nothing."""
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
    """What a run begins with.

    :ivar actions: by the name of the actor.
    :ivar at_success: gets what an action returned, in the moment when it does.
    """

    actions: Mapping[str, Callable[[], Any]]
    at_success: Callable[[Actor], None] = lambda actor: None


@dataclass(frozen=True)
class Run:
    """:ivar order: who could go on, and who did, step by step."""

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
    """:param choose: who goes on, of those who can, and who went last."""
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
    """A run in every order in which at most so many times another actor goes on although the last one could."""
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
    """Chooses these; behind their end whoever went last goes on."""
    todo = iter(names)

    def choose(options: tuple[str, ...], last: str | None) -> str:
        return next(todo, None) or (last if last in options else options[0])

    return choose


def in_order(picks: Sequence[int]) -> Callable[[tuple[str, ...], str | None], str]:
    """Chooses by numbers; behind their end whoever went last goes on."""
    todo = iter(picks)

    def choose(options: tuple[str, ...], last: str | None) -> str:
        pick = next(todo, None)
        if pick is None:
            return last if last in options else options[0]
        return options[pick % len(options)]

    return choose
