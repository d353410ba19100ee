"""The error for logs that cannot be sessionized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from client_session_persistence.snapshot import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_EXAMPLES = 3


@attrs.frozen
class Problem:
    """One kind of mistake in a log: what is wrong, in how many rows, and the first of them (`MAX_EXAMPLES` at most)."""

    description: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """Return the description, the count and the examples."""
        return printable(f"{self.description}: {self.count:,}, such as {'; '.join(self.examples)}")


@attrs.define(repr=False, slots=False)  # with slots, pickling would lose the exception's notes
class LogError(ValueError):
    """Raised for a log that cannot be sessionized.

    Attributes:
        problems: every kind of mistake that was found.

    """

    problems: tuple[Problem, ...]

    @classmethod
    def merged(cls, problems: Iterable[Problem]) -> LogError:
        """Return the error for a log of several parts, given the problems of each."""
        found: dict[str, Problem] = {}
        for problem in problems:
            other = found.get(problem.description, Problem(problem.description, 0, ()))
            examples = (*other.examples, *problem.examples)[:MAX_EXAMPLES]
            found[problem.description] = Problem(problem.description, other.count + problem.count, examples)
        return cls(tuple(found.values()))

    def __str__(self) -> str:
        """Return a line for each problem."""
        return "\n".join(("the log cannot be sessionized:", *map(str, self.problems)))
