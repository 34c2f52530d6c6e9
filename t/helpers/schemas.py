"""Schemas as clients send them, for t/schema_reference.py: models of pydantic, examples in the style
of API documents, and families of each keyword at its edges."""
import datetime
import decimal
import enum
import ipaddress
import random
import typing
import uuid

import pydantic
from pydantic import BaseModel, ConfigDict, Field


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue \"sky\" \\ \u00e9\n"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Address(BaseModel):
    """Where somebody lives."""
    street: str = Field(description="with the number", max_length=40)
    zip: str = Field(pattern=r"^\d{5}$")
    city: typing.Optional[str] = None


class Person(BaseModel):
    name: str = Field(min_length=1, max_length=20)
    age: int = Field(ge=0, le=150)
    home: Address
    work: typing.Optional[Address] = None
    tags: list[str] = Field(default_factory=list, max_length=5)
    color: Color = Color.RED
    friends: list["Person"] = Field(default_factory=list)


class Cat(BaseModel):
    kind: typing.Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: typing.Literal["dog"]
    good: bool = True
    weight: float = Field(gt=0, lt=120.5)


class Pet(BaseModel):
    pet: typing.Union[Cat, Dog] = Field(discriminator="kind")
    backup: typing.Union[Cat, Dog, None] = None
    any: typing.Any = None


class Node(BaseModel):
    value: typing.Union[int, str, float, bool, None]
    left: typing.Optional["Node"] = None
    right: typing.Optional["Node"] = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: uuid.UUID
    at: datetime.datetime
    day: datetime.date
    level: Level
    point: tuple[float, float]
    pairs: list[tuple[str, int]]


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    count: int = 0


class Maps(BaseModel):
    numbers: dict[str, int]
    nested: dict[str, dict[str, typing.Optional[bool]]] = {}
    free: dict[str, typing.Any] = {}


class Net(BaseModel):
    v4: ipaddress.IPv4Address
    v6: ipaddress.IPv6Address
    wait: datetime.timedelta
    link: pydantic.AnyUrl


class Expr(BaseModel):
    op: typing.Literal["add", "mul", "neg"]
    args: list[typing.Union["Expr", float]] = Field(min_length=1, max_length=2)


class Invoice(BaseModel):
    number: str = Field(pattern=r"^[A-Z]{2}-[0-9]{4,6}$")
    total: decimal.Decimal = Field(ge=0, max_digits=8, decimal_places=2)
    lines: list["Line"] = Field(min_length=1)
    paid: bool


class Line(BaseModel):
    text: str
    price: float = Field(ge=0.01, le=99999.99)
    n: int = Field(default=1, gt=0, lt=1000)


Person.model_rebuild()
Node.model_rebuild()
Expr.model_rebuild()
Invoice.model_rebuild()

MODELS = [Address, Person, Cat, Dog, Pet, Node, Strict, Loose, Maps, Net, Expr, Invoice, Line]


def obj(props, required=None, **more):
    return {"type": "object", "properties": props,
            "required": list(props) if required is None else required, **more}


STR, INT, NUM, BOOL, NULL = ({"type": t} for t in ("string", "integer", "number", "boolean", "null"))

DOCUMENTS = {
    "weather": obj({"location": {"type": "string", "description": "City and country"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, ["location"]),
    "calendar": obj({"name": STR, "date": STR, "participants": {"type": "array", "items": STR}},
                    additionalProperties=False),
    "math steps": obj({"steps": {"type": "array", "items": obj(
        {"explanation": STR, "output": STR}, additionalProperties=False)}, "final_answer": STR},
        additionalProperties=False),
    "paper": obj({"title": STR, "authors": {"type": "array", "items": STR}, "abstract": STR,
                  "keywords": {"type": "array", "items": STR}}, additionalProperties=False),
    "ui": {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ui",
           "$defs": {"attribute": obj({"name": STR, "value": STR})},
           **obj({"type": {"type": "string", "enum": ["div", "button", "header", "field"]},
                  "label": STR, "children": {"type": "array", "items": {"$ref": "#"}},
                  "attributes": {"type": "array", "items": {"$ref": "#/$defs/attribute"}}},
                 additionalProperties=False)},
    "moderation": obj({"is_violating": BOOL,
                       "category": {"type": ["string", "null"],
                                    "enum": ["violence", "sexual", "self_harm", None]},
                       "why": {"type": ["string", "null"]}}, additionalProperties=False),
    "linked list": {**obj({"list": {"$ref": "#/$defs/node"}}), "$defs": {"node": obj(
        {"value": NUM, "next": {"anyOf": [{"$ref": "#/$defs/node"}, NULL]}},
        additionalProperties=False)}, "additionalProperties": False},
    "first choice": obj({"item": {"anyOf": [
        obj({"name": STR, "age": NUM}, additionalProperties=False),
        obj({"number": STR, "street": STR, "city": STR}, additionalProperties=False)]}},
        additionalProperties=False),
    "range": obj({"name": {"type": "string"}, "rating": {"type": "number", "minimum": 0,
                                                       "maximum": 5},
                  "votes": {"type": "integer", "minimum": 1}}),
    "search": obj({"query": STR, "top_k": {"type": "integer", "minimum": 1, "maximum": 50,
                                           "default": 10},
                   "filter": {"type": "object", "properties": {
                       "lang": {"enum": ["en", "de", "fr"]}, "since": {"type": "string",
                                                                     "format": "date"}},
                       "additionalProperties": False}}, ["query"]),
    "sql": obj({"columns": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "conditions": {"type": "array", "items": obj({
                    "column": STR, "operator": {"enum": ["=", ">", "<", "<=", ">=", "!="]},
                    "value": {"anyOf": [STR, NUM, obj({"column_name": STR},
                                                      additionalProperties=False)]}},
                    additionalProperties=False)},
                "order_by": {"enum": ["asc", "desc"]}}, additionalProperties=False),
    "openapi nullable": obj({"a": {"type": "string", "nullable": True},
                             "b": {"type": "integer", "nullable": True, "minimum": 3},
                             "c": {"type": "object", "nullable": True,
                                   "properties": {"d": BOOL}}}),
    "upper case": {"type": "OBJECT", "properties": {"a": {"type": "STRING"},
                                                    "b": {"type": "ARRAY",
                                                          "items": {"type": "INTEGER"}}}},
    "old tuple": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
                  "items": [STR, INT], "additionalItems": BOOL},
    "old closed tuple": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
                         "items": [STR, INT], "additionalItems": False, "minItems": 1},
    "definitions": {"definitions": {"a": {"type": "integer"}, "b": {"$ref": "#/definitions/a"}},
                    "type": "object", "properties": {"x": {"$ref": "#/definitions/b"}}},
    "all of": {"allOf": [obj({"a": INT}), obj({"b": STR}, [])]},
    "all of refs": {"$defs": {"id": obj({"id": {"type": "integer", "minimum": 1}}),
                              "named": obj({"name": {"type": "string", "minLength": 2}})},
                    "allOf": [{"$ref": "#/$defs/id"}, {"$ref": "#/$defs/named"}],
                    "properties": {"note": STR}},
    "ref beside words": {"$defs": {"s": {"type": "string"}},
                         **obj({"a": {"$ref": "#/$defs/s", "maxLength": 4, "description": "x"}})},
    "narrowed": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 12},
                           {"enum": [1, 5, 12, 13, "5", 7.5]}]},
    "any of under words": {"type": "object", "properties": {"k": STR}, "required": ["k"],
                           "anyOf": [{"properties": {"k": {"const": "a"}, "x": INT},
                                      "required": ["x"]},
                                     {"properties": {"k": {"const": "b"}, "y": BOOL},
                                      "required": ["y"]}]},
    "product": {"anyOf": [{"minimum": 10}, {"maximum": 3}], "oneOf": [INT, BOOL]},
    "required only": {"type": "object", "required": ["b", "a"]},
    "required undeclared": obj({"z": INT}, ["a", "z"], additionalProperties=True),
    "no words": {"description": "anything"},
    "properties alone": {"properties": {"a": INT}},
    "consts": obj({"v": {"const": 2}, "n": {"const": None}, "t": {"const": True},
                   "o": {"const": {"b": [1, {"z": 1, "A": "x"}], "a": ""}}}),
    "enum of everything": {"enum": [None, True, False, 0, -1.5, 1e3, "", "x\"y", [], [1, "a"], {},
                                    {"k": {"l": []}}]},
    "pattern keys": {"type": "object", "patternProperties": {"^x-[a-z]+$": INT},
                     "additionalProperties": False},
    "free object": {"type": "object"},
    "few keys": {"type": "object", "additionalProperties": INT, "minProperties": 1,
                 "maxProperties": 3},
    "other keys": obj({"a": INT, "ab": INT, "b\"c": INT, "\u00e9t\u00e9": INT, "": INT}, ["a"],
                      additionalProperties=BOOL),
    "odd keys": obj({"a:b": INT, "Z": STR, "_x": BOOL, " y ": INT, "{": NULL, "\u00c4": INT,
                     "a,b": {"type": "object"}, "two words": INT}),
    "false things": {"type": "object", "properties": {"a": False, "b": INT}},
    "empty tuple rest": {"type": "array", "prefixItems": [INT, STR], "items": False},
    "tuple rest": {"type": "array", "prefixItems": [INT], "items": STR, "minItems": 2,
                   "maxItems": 4},
    "tuple must have more": {"type": "array", "prefixItems": [BOOL], "minItems": 3, "maxItems": 3},
    "mixed types": {"type": ["integer", "string", "array"], "minimum": 5, "maxLength": 3,
                    "items": {"type": "null"}},
    "no type": {"minimum": 5, "maxLength": 2, "maxItems": 1, "required": ["a"]},
    "whole multiples": {"type": "number", "multipleOf": 1, "minimum": -3.5, "maximum": 4.5},
    "openai strict tool": obj({"path": {"type": "string"}, "mode": {"type": ["string", "null"],
                                                                 "enum": ["r", "w", None]},
                               "lines": {"type": ["array", "null"], "items": {"type": "integer"}}},
                              additionalProperties=False),
    "geo": obj({"type": {"const": "Polygon"}, "coordinates": {"type": "array", "items": {
        "type": "array", "items": {"type": "array", "items": NUM, "minItems": 2, "maxItems": 3},
        "minItems": 1}}}),
    "long text": obj({"text": {"type": "string", "minLength": 300, "maxLength": 1000}}),
    "json value": {"$ref": "#/$defs/v", "$defs": {"v": {"anyOf": [
        NULL, BOOL, NUM, STR, {"type": "array", "items": {"$ref": "#/$defs/v"}},
        {"type": "object", "additionalProperties": {"$ref": "#/$defs/v"}}]}}},
}


def integers(rng):
    pairs = [(0, 0), (1, 9), (-9, -1), (0, 10), (-1, 1), (9, 11), (99, 101), (-101, 99),
             (10**18, 10**19), (-10**19, 5), (12345, 67890), (1000, 1000), (0, 255),
             (-2**31, 2**31 - 1), (-2**63, 2**63 - 1), (1.5, 3.5), (-2.5, -1.5), (1e3, 2e3)]
    pairs += [sorted((rng.randint(-10**k, 10**k), rng.randint(-10**k, 10**k)))
              for k in range(1, 9)]
    for lo, hi in pairs:
        yield {"type": "integer", "minimum": lo, "maximum": hi}
        if hi - lo > 2:
            yield {"type": "integer", "exclusiveMinimum": lo, "exclusiveMaximum": hi}
    for n in (0, 1, -1, 10, 99, -1000):
        yield {"type": "integer", "minimum": n}
        yield {"type": "integer", "exclusiveMaximum": n}


def numbers(rng):
    pairs = [(0, 1), (0, 0), (-1, 1), (0.5, 0.75), (-0.25, 0.001), (1.05, 1.1), (99.99, 100),
             (-1e3, 1e-3), (3.14159, 3.14160), (-273.15, 5000), (0.1, 0.30000000000000004)]
    pairs += [sorted((round(rng.uniform(-10**k, 10**k), 3), round(rng.uniform(-10**k, 10**k), 3)))
              for k in range(1, 5)]
    for lo, hi in pairs:
        yield {"type": "number", "minimum": lo, "maximum": hi}
        if lo < hi:
            yield {"type": "number", "exclusiveMinimum": lo, "exclusiveMaximum": hi}
    for n in (0, 0.5, -7.25, 100):
        yield {"type": "number", "minimum": n}
        yield {"type": "number", "exclusiveMaximum": n}


def wide(n, required):
    props = {f"field_{i}": (INT, STR, BOOL, {"type": "array", "items": STR})[i % 4]
             for i in range(n)}
    return obj(props, [k for i, k in enumerate(props) if required(i)])


def families(rng):
    yield from (("integer", s) for s in integers(rng))
    yield from (("number", s) for s in numbers(rng))
    for lo, hi in ((0, 0), (0, 1), (2, 2), (1, 3), (0, 255), (0, 256), (0, 257), (255, 600),
                   (256, 512), (300, None), (0, 1023)):
        s = {"type": "string", "minLength": lo}
        yield "string", s if hi is None else {**s, "maxLength": hi}
        s = {"type": "array", "items": BOOL, "minItems": lo}
        yield "array", s if hi is None else {**s, "maxItems": hi}
    for n in (1, 2, 3, 5, 9, 50):
        yield "wide", wide(n, lambda i: False)
        yield "wide", wide(n, lambda i: i % 3 == 1)
    for f in ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri",
              "uuid", "made-up"):
        yield "format", {"type": "string", "format": f}
    for p in ("^[a-z]+$", "[0-9]{3}", "^(a|b)*c?$", "^[^ @]+@[^ @]+$", "^.{2,4}$", "^$"):
        yield "pattern", {"type": "string", "pattern": p}


def all_schemas():
    rng = random.Random(7)
    for m in MODELS:
        yield "pydantic " + m.__name__, m.model_json_schema()
    yield from DOCUMENTS.items()
    for i, (name, s) in enumerate(families(rng)):
        yield f"{name} {i}", s


def deep_tool(i):
    """The arguments of one of many tools: nested objects, lists of them, unions, enums."""
    leaf = obj({f"name_{i}": STR, "kind": {"enum": [f"k{i}_{k}" for k in range(6)]},
                "size": {"type": "integer", "minimum": 1, "maximum": 100 + i},
                "ratio": {"type": "number", "minimum": 0}}, ["kind"])
    return obj({"id": {"type": "string", "description": "which"}, "target": leaf,
                "list": {"type": "array", "items": leaf, "maxItems": 10},
                "when": {"anyOf": [{"type": "string", "format": "date-time"}, INT, NULL]},
                "opts": obj({f"flag_{k}": {"type": ["boolean", "null"]} for k in range(8)}, []),
                "deep": obj({"a": obj({"b": obj({"c": obj({"d": {"type": "array", "items": {
                    "type": "array", "items": NUM}}})})})}, [])}, ["id", "target"])
