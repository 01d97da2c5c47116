"""HTML, escaped where it is put together."""

import base64
import html
import io
from typing import Any

from sdelab.plot import Figure

_VOID = ("img", "meta")


class Markup(str):
    """Text that is HTML already: it is not escaped again."""


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """`<tag name="value">children</tag>`: what is no `Markup` among the children, and every value, is escaped.

    An underscore at the end of a name, as in `class_`, is dropped; inside it is a hyphen.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    if tag in _VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{joined(*children)}</{tag}>")


def joined(*children: Any) -> Markup:
    """The children one after another, escaped where they are no `Markup`."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in children))


def picture(png: bytes, words: str, **attributes: Any) -> Markup:
    """An image inside the page; `words` say what it shows to those who do not see it."""
    data = base64.b64encode(png).decode()
    return element("img", src=f"data:image/png;base64,{data}", alt=words, **attributes)


def drawn(figure: Figure, words: str) -> Markup:
    """A figure of `sdelab.plot` as an image inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return picture(buffer.getvalue(), words)


def table(rows: list[tuple[Any, ...]], head: tuple[Any, ...] = ()) -> Markup:
    """A table; the first cell of a row names it."""
    lines = [element("tr", element("th", name, scope="row"), *(element("td", v) for v in rest)) for name, *rest in rows]
    top = [element("tr", *(element("th", name, scope="col") for name in head))] if head else []
    return element("table", *top, *lines)
