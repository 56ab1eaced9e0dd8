"""Make docs/images/weekly-report.png, from invented backups: ``python docs/_report_image.py``."""

from __future__ import annotations

import random
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from honest import write_backup  # type: ignore[import-not-found]  # noqa: E402

from airflow_pgbackup.backup.report import report  # noqa: E402
from airflow_pgbackup.backup.report.plot import plot  # noqa: E402
from airflow_pgbackup.repository.layout import Series  # noqa: E402
from airflow_pgbackup.repository.open import open_repository  # noqa: E402

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=timezone.utc)
DATABASES = ("orders", "billing", "crm", "web", "analytics", "hr", "archive")


def main() -> None:
    chance = random.Random(3)  # noqa: S311
    with tempfile.TemporaryDirectory() as directory:
        repository = open_repository(f"file://{directory}/pg")
        repository.init()
        for number, name in enumerate(DATABASES):
            for day in range(7):
                looks = ["archive-pass"] + (["restore-pass"] if (day + number) % 7 == 2 else [])
                if name == "orders" and day < 2:
                    continue
                if name == "billing" and day == 0:
                    looks = ["archive-fail"]
                if name == "analytics" and chance.random() < 0.3:
                    looks = []
                write_backup(
                    repository,
                    Series("prod", name),
                    NOW - timedelta(days=day, hours=5),
                    looks=looks,
                    seed=f"{name}{day}",
                )
        found = report(repositories=[repository], now=NOW)
        (ROOT / "docs" / "images" / "weekly-report.png").write_bytes(plot(found))


if __name__ == "__main__":
    main()
