"""How a command line writes what its user can change."""

from __future__ import annotations

from airflow_pgbackup.cli.vocabulary import Command
from airflow_pgbackup.wording import Wording

# Where the option is not the parameter's name with hyphens.
_OPTIONS = {
    "databases": "--database",
    "recipients": "--recipient",
    "tables": "--table",
    "schemas": "--schema",
    "exclude_schemas": "--exclude-schema",
    "indexes": "--index",
    "functions": "--function",
    "sections": "--section",
    "keep_labels": "--keep-label",
    "maintenance_database": "--maintenance-db",
}
# Parameters that are true unless an option is given.
_NEGATED = {"terminate_sessions": "--keep-sessions", "analyze": "--no-analyze", "keep_old": "--drop-old"}
_BOTO3 = {
    "endpoint_url": "AWS_ENDPOINT_URL_S3",
    "verify": "AWS_CA_BUNDLE",
    "region_name": "AWS_DEFAULT_REGION",
    "credentials": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


class CommandWording(Wording):
    """The wording of a command.

    :param program: ``pgbackup`` or ``airflow pgbackup``.
    :param airflow: whether Airflow's settings apply.
    :param postgres, aws: whether Airflow's connections are used for servers and for S3.
    """

    def __init__(
        self, command: Command, *, program: str, airflow: bool = False, postgres: bool = False, aws: bool = False
    ) -> None:
        self._program, self._airflow, self._postgres, self._aws = program, airflow, postgres, aws
        self._flags = {flag for argument in command.arguments for flag in argument.flags}
        if command.name == "check":  # its hints name options of the dump
            self._flags.add("--option")

    def parameter(self, name: str, value: object = True) -> str:
        if name in _NEGATED:
            return f"no {_NEGATED[name]}" if value is True else _NEGATED[name]
        flag = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        if flag in self._flags:
            return flag if value is True else f"{flag} {'none' if value is None else value}"
        if "--option" in self._flags:
            return f"-o {name}" if value is True else f"-o {name}={value}"
        return super().parameter(name) if value is True else super().parameter(name, value)

    def setting(self, name: str) -> str:
        return super().setting(name) if self._airflow else f"PGBACKUP_{name.upper()}"

    def command(self, line: str) -> str:
        return f"{self._program} {line}"

    def new_repository(self) -> str:
        return f"with {self._program} init"

    def database(self) -> str:
        return "--dbname, or the connection's schema (its database)" if self._postgres else "--dbname or PGDATABASE"

    def complete_set(self) -> str:
        return "The lines above name the cause of each failure. Remove it, and run the command again for a new set."

    def identity(self) -> str:
        place = f"in the file of {self.setting('identity_file')}"
        return f"with --identity, or {place}" if "--identity" in self._flags else place

    def store(self, keyword: str) -> str:
        return super().store(keyword) if self._aws else _BOTO3[keyword]
