"""A value that is valid for a JSON schema: tool arguments and structured output."""

import re
from collections.abc import Mapping
from typing import Any

from simulator.errors import ApiError
from simulator.prose import NAMES, SENTENCES, random_numbers
from simulator.regex_sampler import sample_match

#: From this depth on, only required properties are set, so that a recursive schema terminates.
FULL_DEPTH = 4
LAST_DEPTH = 24

FORMATS = {
    "date": "2026-11-21",
    "time": "09:30:00Z",
    "date-time": "2026-11-21T09:30:00Z",
    "duration": "PT15M",
    "email": "ada@example.com",
    "hostname": "www.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://www.example.com/",
    "uuid": "0192e4a0-7c1e-7d3a-9b1a-2f6c5d4e3b2a",
}

#: Properties with these names contain prose, not a label.
PROSE_NAMES = re.compile(r"summary|description|text|content|body|reason|answer|message|explanation|excerpt", re.I)

KEYWORDS_OF_TYPES = {
    "object": {"properties", "required", "additionalProperties", "minProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}


def sample_value(schema: Any, seed: int) -> Any:
    """Return a value that the schema accepts, chosen by the seed. Raises `ApiError` if it is no schema."""
    try:
        return _SchemaSampler(schema, seed).value(schema, name="", depth=0)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ApiError(400, "Invalid JSON schema: it contradicts itself or is not a schema.") from error


class _SchemaSampler:
    def __init__(self, root: Any, seed: int) -> None:
        self._root = root
        self._rng = random_numbers(seed)

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth > LAST_DEPTH:
            return self._label()
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choose(schema["enum"])
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return int(self._number(schema, step=1))
            case "number":
                return self._number(schema, step=schema.get("multipleOf", 0.5))
            case "boolean":
                return self._choose([True, False])
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema with its reference, its conditions and its first alternative written into it."""
        for _ in range(LAST_DEPTH):
            if "$ref" in schema:
                schema = _merged(_without(schema, "$ref"), self._at(schema["$ref"]))
            elif schema.get("allOf"):
                first, *others = schema["allOf"]
                rest = _without(schema, "allOf") | ({"allOf": others} if others else {})
                schema = _merged(rest, first)
            elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
                schema = _merged(_without(schema, "anyOf", "oneOf"), alternatives[0])
            else:
                break
        return schema

    def _at(self, reference: str) -> Any:
        """What `#/$defs/name` points to; an empty schema if it points nowhere."""
        found = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                step = step.replace("~1", "/").replace("~0", "~")
                found = found.get(step, {}) if isinstance(found, Mapping) else {}
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = [name for name in schema.get("required") or () if name not in properties]
        wanted = (
            properties
            if depth < FULL_DEPTH
            else {n: s for n, s in properties.items() if n in schema.get("required", ())}
        )
        made = {name: self.value(inner, name, depth + 1) for name, inner in wanted.items()}
        extra = schema.get("additionalProperties", {})
        for name in required:
            made[name] = self.value(extra, name, depth + 1)
        while len(made) < schema.get("minProperties", 0):
            name = f"{self._label()}_{len(made)}"
            made[name] = self.value(extra, name, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        fixed = [self.value(inner, name, depth + 1) for inner in schema.get("prefixItems") or ()]
        usual = max(schema.get("minItems", 0), 2 if depth < FULL_DEPTH else 0)
        wanted = max(0, min(usual, schema.get("maxItems", usual)) - len(fixed))
        items = schema.get("items", {})
        if items is False:
            return fixed
        if schema.get("uniqueItems"):
            return fixed + self._distinct(items, name, depth, wanted, schema.get("minItems", 0))
        return fixed + [self.value(items, name, depth + 1) for _ in range(wanted)]

    def _distinct(self, items: Any, name: str, depth: int, wanted: int, at_least: int) -> list[Any]:
        found: list[Any] = []
        # A short enum runs out of values; more tries than this would not find another.
        for _ in range(50 * max(wanted, 1)):
            if len(found) >= wanted:
                break
            value = self.value(items, name, depth + 1)
            if value not in found:
                found.append(value)
        return found

    def _number(self, schema: Mapping[str, Any], step: float) -> float:
        step = schema.get("multipleOf", step)
        low, high = _range_of(schema, step)
        if low is None:
            low = 0 if high is None else high - 20 * step
        # Multiples of the step, counted from the first one inside the range.
        first = -(-low // step)
        last = first + 20 if high is None else high // step
        if last < first and "multipleOf" not in schema:
            return low  # the range is narrower than our step
        return (first + next(self._rng) % (int(last - first) + 1 if last > first else 1)) * step

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        if fixed := FORMATS.get(str(schema.get("format"))):
            return fixed
        if pattern := schema.get("pattern"):
            return _lengthened(sample_match(pattern) or self._label(), schema.get("minLength", 0))
        text: str = self._choose(SENTENCES) if PROSE_NAMES.search(name) else self._label()
        while len(text) < schema.get("minLength", 0):
            text += " " + self._label()
        longest: int | None = schema.get("maxLength")
        return text[:longest]

    def _label(self) -> str:
        return f"{self._choose(NAMES)} {self._choose(NAMES)}"

    def _choose(self, values: Any) -> Any:
        return values[next(self._rng) % len(values)]


def _lengthened(text: str, least: int) -> str:
    """Repeat the last character: patterns with a minimum length mostly end in a repetition."""
    return text + text[-1:] * (least - len(text))


def _type_of(schema: Mapping[str, Any]) -> str:
    declared = schema.get("type")
    if isinstance(declared, list):
        declared = next((kind for kind in declared if kind != "null"), "null")
    if isinstance(declared, str):
        return declared
    for kind, keywords in KEYWORDS_OF_TYPES.items():
        if not keywords.isdisjoint(schema):
            return kind
    return "string"


def _range_of(schema: Mapping[str, Any], step: float) -> tuple[float | None, float | None]:
    """The lowest and the highest number allowed, both included."""
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    lows = [bound for bound in (low, None if above is None else above + _nudge(schema, step)) if bound is not None]
    highs = [bound for bound in (high, None if below is None else below - _nudge(schema, step)) if bound is not None]
    return max(lows, default=None), min(highs, default=None)


def _nudge(schema: Mapping[str, Any], step: float) -> float:
    return 1 if schema.get("type") == "integer" else step / 1000


def _merged(schema: Mapping[str, Any], other: Any) -> dict[str, Any]:
    """Both schemas in one; where both say something about the same thing, the second wins."""
    if not isinstance(other, Mapping):
        return dict(schema)
    merged = {**schema, **other}
    if "properties" in schema and "properties" in other:
        merged["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        merged["required"] = [*schema["required"], *other["required"]]
    return merged


def _without(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in names}
