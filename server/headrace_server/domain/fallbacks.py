"""Whether the providers that stand in for one another can do so: each is there, none is named twice, and none leads back to its begin."""

from collections.abc import Mapping, Sequence

Named = Mapping[str, Sequence[str]]
"""Every provider that there is, with those that it names as its fallbacks."""


def wrong_fallbacks(provider: str, named: Named) -> list[tuple[int, str]]:
    """What is wrong with the fallbacks of a provider: where in its list, and a sentence."""
    wanted = named[provider]
    wrong = []
    for i, name in enumerate(wanted):
        if name == provider:
            wrong.append((i, "is the provider itself"))
        elif name not in named:
            wrong.append((i, f"there is no provider named {name!r}"))
        elif name in wanted[:i]:
            wrong.append((i, f"names {name!r} a second time"))
        elif way_back := _way(name, provider, named):
            wrong.append((i, f"makes a cycle: {' → '.join((provider, *way_back))}"))
    return wrong


def _way(start: str, end: str, named: Named) -> tuple[str, ...]:
    """The shortest way from one provider to another by what they name; () where there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    for way in ways:
        for name in named.get(way[-1], ()):
            if name == end:
                return *way, name
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return ()
