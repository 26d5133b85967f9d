"""Names and values from outside, as a message shows them."""

LONGEST = 100  # letters of a name in a message


def shown(name: str, most: int = LONGEST) -> str:
    """A name from a file as a message shows it: in printable letters, the middle of a long one left out."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[1 - most + most // 2 :]}"


def printable(text: str) -> str:
    r"""Control characters, and those that turn the direction of a line, as \x1b or \u202e."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
