"""Schemas of many kinds, all of which have an end that a babbling model comes to."""
import time

WORDS = "id name city kind size when note left right first".split()


def leaf(rng):
    return rng.choice([
        {"type": "string", "maxLength": rng.randint(0, 12)},
        {"type": "string", "minLength": 2, "maxLength": 9},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
        {"type": "string", "enum": ["celsius", "fahrenheit", "a \"b\"\\\n"]},
        {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"},
        {"const": rng.choice([7, "seven", None, True, [1, {"x": []}]])},
        {"enum": [1, 2.5, "three", None, False]},
        {"type": ["integer", "null"]},
        {"type": "integer", "minimum": rng.randint(-50, 0), "maximum": rng.randint(1, 900)},
        {"type": "string", "format": rng.choice(["date", "uuid", "time"])},
    ])


def node(rng, depth):
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        return leaf(rng)
    if kind < 0.6:
        names = rng.sample(WORDS, rng.randint(0, 4))
        return {"type": "object", "properties": {n: node(rng, depth - 1) for n in names},
                "required": rng.sample(names, rng.randint(0, len(names))),
                **({"additionalProperties": False} if rng.random() < 0.7 else {})}
    if kind < 0.8:
        low = rng.randint(0, 2)
        return {"type": "array", "items": node(rng, depth - 1), "minItems": low,
                "maxItems": low + rng.randint(0, 2)}
    if kind < 0.9:
        return {"anyOf": [node(rng, depth - 1) for _ in range(rng.randint(1, 3))]}
    return {"type": "array", "prefixItems": [leaf(rng) for _ in range(rng.randint(1, 3))],
            "items": False, "minItems": 1}


def tree(rng):
    return {"$defs": {"tree": {"type": "object", "properties": {
        "value": leaf(rng), "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"},
                                     "maxItems": rng.randint(1, 2)}},
        "required": ["value"], "additionalProperties": False}}, "$ref": "#/$defs/tree"}


def some(rng, n):
    return [tree(rng) if i % 12 == 5 else node(rng, 1 + i % 3) for i in range(n)]


def wait(cond, limit=60):
    end = time.time() + limit
    while time.time() < end:
        if cond():
            return True
        time.sleep(0.05)
    return False
