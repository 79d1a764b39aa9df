"""Errors a person can act on: what happened, where, and how to fix it."""

from __future__ import annotations


class Problem(Exception):
    """Base of every error raised on purpose; the shell prints its three parts on three lines."""

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        return f"{self.what}\n   in: {self.where}\n hint: {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)

    def as_dict(self) -> dict[str, str]:
        """The four fields that `--json` and the journal carry."""
        return {"class": type(self).__name__, "what": self.what, "where": self.where, "fix": self.fix}


def _rebuild(cls: type[Problem], what: str, where: str, fix: str) -> Problem:
    return cls(what, where=where, fix=fix)


class Refused(Problem):
    """A method does not apply here; nothing was spent."""


class OverBudget(Problem):
    """The stated cost does not fit what is left; nothing was spent."""


class Unfit(Problem):
    """Data or settings have the wrong shape, type, or values."""


class Unreadable(Problem):
    """A file is missing, damaged, or not safe to open."""


class Undeclared(Problem):
    """A method touched something that its `needs` do not declare."""


ERRORS: dict[str, type[Problem]] = {
    c.__name__: c for c in (Problem, Refused, OverBudget, Unfit, Unreadable, Undeclared)
}


def problem_from(fields: dict[str, str]) -> Problem:
    """The inverse of `Problem.as_dict`: an error that crossed a process boundary.

    >>> str(problem_from({"class": "Unfit", "what": "w", "where": "x", "fix": "f"})).splitlines()[0]
    'w'
    """
    return ERRORS.get(fields["class"], Problem)(fields["what"], where=fields["where"], fix=fields["fix"])
