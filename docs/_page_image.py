"""Make docs/images/backups-page.png, a picture of the Backups page with invented backups, in Airflow's own frame.

python docs/_page_image.py      needs Chromium on the PATH
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests" / "airflow"))
from honest import write_backup  # type: ignore[import-not-found]  # noqa: E402
from live import LiveAirflow  # type: ignore[import-not-found]  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from airflow_pgbackup.repository.layout import Series, backup_folder  # noqa: E402
from airflow_pgbackup.repository.local.repository import LocalRepository  # noqa: E402
from airflow_pgbackup.repository.verification import Verification  # noqa: E402

NOW = datetime.now(timezone.utc).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HEALTHY = ("orders", "crm", "web", "hr", "analytics", "inventory")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pgbackup-page-") as name:
        repository = LocalRepository(Path(name) / "pg")
        repository.init()
        fill(repository, Path(name) / "pg")
        environment = {
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "PGBACKUP_PAGE_REPOSITORIES": repository.uri,
            "PGBACKUP_PAGE_RETENTION": '{"keep_daily": 7, "keep_weekly": 4}',
        }
        with (
            LiveAirflow(Path(name) / "airflow", environment, processes=("api-server",)) as airflow,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{airflow.url}/plugin/backups")
            page.frame_locator("iframe").locator("tbody tr").first.wait_for()
            page.frame_locator("iframe").locator("h2 code").evaluate("code => code.textContent = 's3://my-backups/pg'")
            page.wait_for_timeout(1000)
            page.screenshot(path=str(ROOT / "docs" / "images" / "backups-page.png"))
            browser.close()


def fill(repository: LocalRepository, root: Path) -> None:
    chance = random.Random(7)  # noqa: S311

    def add(database: str, age: timedelta, *looks: str) -> None:
        size = int(60_000 * (1 + HEALTHY.index(database) if database in HEALTHY else 3) * chance.uniform(0.9, 1.1))
        series = Series("prod", database)
        made = write_backup(
            repository, series, NOW - age, looks=looks, members={"app.dump": bytes(size)}, seed=f"{database}{age}"
        )
        folder = root / backup_folder(series, made.id)
        finished = (NOW - age).timestamp() + size / 40_000 * chance.uniform(0.8, 1.2)
        os.utime(folder / "manifest.json", (finished, finished))
        for path in folder.glob("*-restore-pass.json"):
            seen = Verification.from_json(path.read_bytes())
            path.write_bytes(replace(seen, restore_seconds=size / 55_000).to_json())

    for database in HEALTHY:
        for night in range(14):
            add(database, night * DAY + 6 * HOUR, "archive-pass", *(["restore-pass"] if night % 7 == 3 else []))
    for night in range(3, 14):
        add("billing", night * DAY + 6 * HOUR, "archive-pass")
    for night in range(2):
        add("billing", night * DAY + 6 * HOUR, "archive-fail")
    for night in range(4, 14):
        add("legacy", night * DAY + 6 * HOUR, "archive-pass")


if __name__ == "__main__":
    main()
