import dataclasses

OK, WARN, BAD = "ok", "warn", "bad"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Fields: `name`; `value`, what was found, in words and numbers; `usual`, what it is elsewhere; `verdict`, `OK`, `WARN` or
    `BAD`; `advice`, what to change, which nothing has that is `OK`.
    """

    name: str
    value: str
    usual: str
    verdict: str = OK
    advice: str = ""

    def __post_init__(self):
        if self.verdict == OK:
            object.__setattr__(self, "advice", "")


def graded(value: float, warn: float, bad: float) -> str:
    """`OK` up to `warn`, `BAD` beyond `bad`."""
    if not value <= bad:
        return BAD
    return OK if value <= warn else WARN
