"""How numbers of things stand in sentences."""


def counted(n: int, one: str, several: str = "") -> str:
    """`1 case`, `2 cases`."""
    return f"{n} {one if n == 1 else several or one + 's'}"
