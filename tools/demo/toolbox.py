"""Tools for the demo data: declarations, requests that need them, results and the final answers."""

import json
from collections import namedtuple

import words

# name and args of each call, result texts, final answer, thoughts before and after
Use = namedtuple("Use", "tools ask calls results answer plan")

SKIES = "sunny cloudy rainy windy foggy snowy stormy clear".split()
ABOUT_TOOL = {
    "get_weather": [
        "Get the current weather for a city.",
        "Get the weather.",
        "Current weather in a city",
        "Returns the weather for a location.",
        "Get weather",
        "Look up the weather in a place.",
    ],
    "get_time": [
        "Get the current time in a city.",
        "Current time",
        "Get the time.",
        "Tells the local time.",
    ],
    "add": ["Add two numbers.", "Adds two numbers", "Sum of a and b.", "Returns a + b."],
    "multiply": ["Multiply two numbers.", "Product of a and b.", "Returns a * b."],
    "set_timer": ["Set a timer.", "Start a timer for some minutes.", "Sets a kitchen timer"],
    "send_message": ["Send a message to a person.", "Send a text message.", "Sends a message"],
    "search": ["Search the web.", "Search for something.", "Web search"],
}
ARG_TEXT = {
    "city": ["City name", "The city", "Name of the city"],
    "location": ["City name", "The city"],
    "a": ["First number"],
    "b": ["Second number"],
    "minutes": ["How many minutes"],
    "to": ["Who gets it", "Name of the person"],
    "text": ["The message", "What to say"],
    "query": ["What to search for", "Search words"],
    "name": ["Which one", "Its name"],
    "value": ["The value"],
    "unit": ["Unit", "Temperature unit"],
}
KIND = {"a": "integer", "b": "integer", "minutes": "integer", "value": "integer"}


def declare(rng, name, args, about, enums=None):
    props = {}
    for a in args:
        schema = {"type": KIND.get(a, "string")}
        if enums and a in enums:
            schema["enum"] = enums[a]
        if rng.random() < 0.6:
            schema["description"] = rng.choice(ARG_TEXT[a])
        props[a] = schema
    par = {"type": "object", "properties": props}
    need = [a for a in args if not (enums and a in enums)]
    if need and rng.random() < 0.8:
        par["required"] = need
    fn = {"name": name, "parameters": par}
    if about and rng.random() < 0.93:
        fn["description"] = about
    return {"type": "function", "function": fn}


def number(rng):
    return rng.randint(0, 999)


def weather(rng):
    arg = rng.choice(["city", "city", "city", "location"])
    with_unit = rng.random() < 0.3
    args = [arg, "unit"] if with_unit else [arg]
    tool = declare(
        rng,
        "get_weather",
        args,
        rng.choice(ABOUT_TOOL["get_weather"]),
        {"unit": ["celsius", "fahrenheit"]},
    )
    towns = [words.city(rng) for _ in range(2 if rng.random() < 0.15 else 1)]
    ask = rng.choice(
        [
            "What is the weather in {}?",
            "What's the weather like in {}?",
            "Weather in {}?",
            "How is the weather in {}?",
            "Tell me the weather in {}.",
            "Is it warm in {}?",
            "What is the weather in {} today?",
            "Do I need a coat in {}?",
            "Weather in {} please.",
            "How is the weather in {} right now?",
        ]
    ).format(" and ".join(towns))
    unit = None
    if with_unit and rng.random() < 0.5:
        unit = rng.choice(["celsius", "fahrenheit"])
        ask = ask.rstrip(".?") + " in " + unit + ask[-1] if ask[-1] in ".?" else ask + " in " + unit
    calls, results, said = [], [], []
    style = rng.choice(["text", "json", "json2"])
    for t in towns:
        calls.append(("get_weather", {arg: t, **({"unit": unit} if unit else {})}))
        deg, sky = rng.randint(-9, 39), rng.choice(SKIES)
        results.append(
            {
                "text": f"{deg} degrees, {sky}",
                "json": json.dumps({"temperature": deg, "sky": sky}),
                "json2": json.dumps({"temp": deg, "condition": sky}),
            }[style]
        )
        said.append(f"In {t} it is {deg} degrees and {sky}.")
    return Use(
        [tool],
        ask,
        calls,
        results,
        " ".join(said),
        "I call get_weather for " + " and ".join(towns) + ".",
    )


def clock(rng):
    arg = rng.choice(["city", "city", "location"])
    town, now = words.city(rng), f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    ask = rng.choice(
        [
            "What time is it in {}?",
            "Tell me the time in {}.",
            "What is the time in {}?",
            "How late is it in {}?",
            "Time in {}?",
            "What is the local time in {}?",
        ]
    ).format(town)
    return Use(
        [declare(rng, "get_time", [arg], rng.choice(ABOUT_TOOL["get_time"]))],
        ask,
        [("get_time", {arg: town})],
        [now],
        f"It is {now} in {town}.",
        f"I call get_time for {town}.",
    )


def calculator(rng):
    name, op, said = rng.choice([("add", "+", "plus"), ("multiply", "*", "times")])
    a, b = number(rng), number(rng)
    res = a + b if op == "+" else a * b
    form = rng.choice([f"{a} {op} {b}", f"{a} {said} {b}"])
    ask = rng.choice(
        [
            "What is {}?",
            "How much is {}?",
            "Use the tool: {}",
            "Calculate {}.",
            "Compute {} with the tool.",
            "Please work out {}.",
        ]
    ).format(form)
    return Use(
        [declare(rng, name, ["a", "b"], rng.choice(ABOUT_TOOL[name]))],
        ask,
        [(name, {"a": a, "b": b})],
        [str(res)],
        f"{a} {op} {b} = {res}",
        f"I call {name} with {a} and {b}.",
    )


def timer(rng):
    m = rng.randint(1, 90)
    ask = rng.choice(
        [
            "Set a timer for {} minutes.",
            "Start a timer of {} minutes.",
            "Timer for {} minutes please.",
            "Wake me in {} minutes.",
            "Remind me in {} minutes.",
        ]
    ).format(m)
    return Use(
        [declare(rng, "set_timer", ["minutes"], rng.choice(ABOUT_TOOL["set_timer"]))],
        ask,
        [("set_timer", {"minutes": m})],
        [rng.choice(["ok", "done", "timer set"])],
        f"The timer is set for {m} minutes.",
        f"I call set_timer with {m} minutes.",
    )


def message(rng):
    who, text = words.name(rng), " ".join(words.word(rng) for _ in range(rng.randint(1, 3)))
    ask = rng.choice(
        [
            "Send {n} the message: {t}",
            "Tell {n}: {t}",
            "Send a message to {n}: {t}",
            "Write to {n}: {t}",
        ]
    ).format(n=who, t=text)
    return Use(
        [declare(rng, "send_message", ["to", "text"], rng.choice(ABOUT_TOOL["send_message"]))],
        ask,
        [("send_message", {"text": text, "to": who})],
        [rng.choice(["sent", "ok", "done"])],
        f"I sent the message to {who}.",
        f"I call send_message for {who}.",
    )


def lookup(rng):
    q = rng.choice(words.TOPICS) if rng.random() < 0.5 else words.word(rng) + " " + words.word(rng)
    found = " ".join(words.word(rng) for _ in range(rng.randint(1, 3)))
    ask = rng.choice(
        [
            "Search for {}.",
            "Search the web for {}.",
            "Look up {}.",
            "Find something about {}.",
            "Google {}.",
        ]
    ).format(q)
    return Use(
        [declare(rng, "search", ["query"], rng.choice(ABOUT_TOOL["search"]))],
        ask,
        [("search", {"query": q})],
        [found],
        f"I found this about {q}: {found}",
        f"I call search for {q}.",
    )


def invented(rng):
    """A tool that exists only in this prompt: the declaration is all the model knows of it."""
    if rng.random() < 0.7:
        verb, noun = rng.choice(words.VERBS), rng.choice(words.NOUNS)
    else:
        verb, noun = words.syllables(rng, 2), words.syllables(rng, 2)
    name = f"{verb}_{noun}"
    about = rng.choice(
        [
            f"{verb.capitalize()} the {noun}.",
            f"{verb.capitalize()} a {noun}",
            f"Use it to {verb} the {noun}.",
        ]
    )
    arg = rng.choice(["none", "name", "value"])
    args, given, tail = [], {}, ""
    if arg == "name":
        given = {"name": words.word(rng)}
        args, tail = ["name"], rng.choice([" {}", " named {}", " called {}"]).format(given["name"])
    elif arg == "value":
        given = {"value": number(rng)}
        args, tail = ["value"], rng.choice([" with {}", " with value {}", " at {}"]).format(
            given["value"]
        )
    ask = rng.choice(
        [
            "{} the {}{}.",
            "Please {} the {}{}.",
            "Can you {} the {}{}?",
            "I want you to {} the {}{}.",
            "{} my {}{}.",
        ]
    ).format(verb, noun, tail)
    ask = ask[0].upper() + ask[1:]
    res = rng.choice(["ok", "done", "failed", str(number(rng)), words.word(rng)])
    return Use(
        [declare(rng, name, args, about)],
        ask,
        [(name, given)],
        [res],
        f"The result of {name} is: {res}",
        f"I call {name}.",
    )


MAKERS = [
    (weather, 6),
    (clock, 3),
    (calculator, 3),
    (timer, 2),
    (message, 2),
    (lookup, 2),
    (invented, 6),
]


def pick(rng):
    make = rng.choices([m for m, _ in MAKERS], [w for _, w in MAKERS])[0]
    return make(rng)


def with_others(rng, use, n_max=4):
    """The tools of this use among others that are not wanted."""
    tools, seen = list(use.tools), {t["function"]["name"] for t in use.tools}
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, n_max])):
        t = pick(rng).tools[0]
        if t["function"]["name"] not in seen:
            seen.add(t["function"]["name"])
            tools.append(t)
    rng.shuffle(tools)
    return tools
