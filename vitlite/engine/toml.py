"""The run directory's config.toml: tables of plain values, written and read without another dependency.

Python 3.10 has no ``tomllib``. What is written here is the part of TOML whose values are also JSON, so that a few
lines read it back there.
"""

import json

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None


def dumps(tables):
    """``{table: {key: value}}`` as TOML; values are strings, numbers, booleans or flat lists of them."""
    lines = []
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _value(value):
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value) if "inf" in repr(value) or "nan" in repr(value) else _float(value)
    # JSON strings are TOML basic strings, except that TOML wants the DEL character escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _float(value):
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def loads(text):
    """The tables of a file that :func:`dumps` wrote (any TOML where Python has a reader). Raises ``ValueError``."""
    return tomllib.loads(text) if tomllib else loads_plain(text)


def loads_plain(text):
    """Reads what :func:`dumps` writes, line by line; anything else is a ``ValueError``."""
    tables, table = {}, None
    # Not splitlines(): it also breaks at characters such as U+2028, which may stand within a string.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]") and "=" not in line:
            table = tables.setdefault(line[1:-1], {})
            continue
        key, equals, value = line.partition("=")
        if table is None or not equals:
            raise ValueError(f"line {number}: expected `key = value` inside a [table]")
        table[key.strip()] = json.loads(value)
    return tables
