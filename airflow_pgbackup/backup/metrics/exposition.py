"""OpenMetrics text: families of gauges, one line for each sample.

The text is also valid in Prometheus' older format, which node_exporter's textfile collector reads: there, the lines
``# UNIT`` and ``# EOF`` are comments. https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airflow_pgbackup.text import printable

_UNITS = ("seconds", "bytes")


@dataclass(frozen=True)
class Family:
    """A gauge and its samples.

    :param name: ends with ``_`` and its unit where it has one.
    :param help: one sentence.
    :param samples: pairs of labels and value; the labels of each pair differ from those of all others.
    """

    name: str
    help: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    @property
    def unit(self) -> str | None:
        """``seconds``, ``bytes`` or None."""
        unit = self.name.rpartition("_")[2]
        return unit if unit in _UNITS else None

    def as_json(self) -> dict[str, object]:
        """Return ``name``, ``unit``, ``help`` and ``samples``, each with ``labels`` and ``value``."""
        samples = [{"labels": dict(labels), "value": value} for labels, value in self.samples]
        return {"name": self.name, "unit": self.unit, "help": self.help, "samples": samples}


def render(families: Iterable[Family]) -> str:
    """Return the families as OpenMetrics text, which ends with ``# EOF`` and a line end.

    Label values are shown as :func:`~airflow_pgbackup.text.printable` shows them.
    """
    lines: list[str] = []
    for family in families:
        lines.append(f"# TYPE {family.name} gauge")
        if family.unit:
            lines.append(f"# UNIT {family.name} {family.unit}")
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        for labels, value in family.samples:
            pairs = ",".join(f'{name}="{_escaped(printable(text))}"' for name, text in labels.items())
            lines.append(f"{family.name}{{{pairs}}} {value!r}")
    return "\n".join([*lines, "# EOF", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
