"""Errors in a config, in one line: where, and what."""

import re

STRUCTURE = ("Does not validate against", "Subtypes", "Errors", "Given value", "Expected a NoneType", "Seq pos", "Not a valid subclass of")
NESTED = ("Does not validate against", "Parser key", "Problem with given class_path")
MAX_VALUE = 60
KEY = re.compile(r'(?:Parser key|Problem with parser key|Key) "([^"]+)"')
CALLABLE = re.compile(r"^Type .* expects a function or a callable class: ?")
CLASS = re.compile(r"Problem with given class_path '([^']+)'")


def shorten(message: str) -> str:
    """Return the innermost reason of a jsonargparse error, with the path of keys and the class that lead to it; other messages as they are.

    jsonargparse reports every type that it tried, nested, with the whole value each time; the reason is the first line that is not about
    that nesting.
    """
    if not any(word in message for word in NESTED):
        return message
    keys: list[str] = []
    class_path = ""
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        keys += KEY.findall(text)
        named = CLASS.search(text)
        class_path = named.group(1) if named else class_path
        reason, _, value = CLASS.sub("", KEY.sub("", CALLABLE.sub("", text))).partition(". Got value: ")
        reason = re.sub(r"<class '([^']+)'>", r"\1", reason).strip(" :")
        if not reason or reason.startswith(STRUCTURE):
            continue
        if value and len(value) < MAX_VALUE:
            reason += f", got {value}"
        where = ".".join(keys)
        inside = f" ({class_path})" if class_path else ""
        return f"{where}{inside}: {reason}" if where else reason
    return message
