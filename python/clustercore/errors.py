"""The exceptions that clustercore raises.

ClusterCoreError
+-- DataError (also ValueError)      a bar, a file or a frame is not usable
+-- ConfigError (also ValueError)    a setting is unknown or out of range
+-- StoreError, HistoryError, ControlError   the database, history, a live process; in their modules
+-- EngineBusy (also RuntimeError)   two threads used one engine
+-- InternalError (also RuntimeError)  a fault of ours; the engine refuses work until ``reset``
"""

from __future__ import annotations

__all__ = ["ClusterCoreError", "ConfigError", "DataError", "EngineBusy", "InternalError"]


class ClusterCoreError(Exception):
    """Base of every error that clustercore raises on purpose."""


class DataError(ClusterCoreError, ValueError):
    """Market data that cannot be used as it is.

    Parameters
    ----------
    problem : str
        What is wrong, and where it helps, what to pass instead.
    file : str, optional
        The file the data came from.
    row : int, optional
        Zero-based row of the input.
    column : str, optional
        Name of the column.
    found, expected : str, optional
        What stood there, and what may stand there.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        row: int | None = None,
        column: str | None = None,
        found: str | None = None,
        expected: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = file
        self.row = row
        self.column = column
        self.found = found
        self.expected = expected
        super().__init__(problem)

    def __str__(self) -> str:
        place = ", ".join(
            part
            for part in (
                self.file,
                None if self.row is None else f"row {self.row}",
                None if self.column is None else f"column {self.column!r}",
            )
            if part is not None
        )
        values = ", ".join(
            part
            for part in (
                None if self.found is None else f"found {self.found}",
                None if self.expected is None else f"expected {self.expected}",
            )
            if part is not None
        )
        text = f"{place}: {self.problem}" if place else self.problem
        return f"{text} ({values})" if values else text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_data_error, (self.problem, self.__dict__.copy()))

    def in_file(self, file: str) -> DataError:
        """Return the same error with the file's name, kept if it already has one."""
        return DataError(
            self.problem,
            file=self.file or file,
            row=self.row,
            column=self.column,
            found=self.found,
            expected=self.expected,
        )


def _rebuild_data_error(problem: str, state: dict[str, object]) -> DataError:
    error = DataError(problem)
    error.__dict__.update(state)
    return error


class ConfigError(ClusterCoreError, ValueError):
    """A setting that is unknown, of the wrong type or out of its range.

    Parameters
    ----------
    problem : str
        What is wrong.
    field : str, optional
        Dotted name of the setting, such as ``cluster.threshold``.
    found, expected : str, optional
        The value given, and what it may be.
    """

    def __init__(
        self,
        problem: str,
        *,
        field: str | None = None,
        found: str | None = None,
        expected: str | None = None,
    ) -> None:
        self.problem = problem
        self.field = field
        self.found = found
        self.expected = expected
        values = ", ".join(
            part
            for part in (
                None if found is None else f"found {found}",
                None if expected is None else f"expected {expected}",
            )
            if part is not None
        )
        text = f"{field}: {problem}" if field else problem
        super().__init__(f"{text} ({values})" if values else text)


class EngineBusy(ClusterCoreError, RuntimeError):
    """Two threads used one engine at the same time."""


class InternalError(ClusterCoreError, RuntimeError):
    """A fault inside the engine; it refuses work until ``reset``."""
