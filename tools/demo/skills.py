"""What the demo model can do without tools: one maker per skill.

A maker takes a seeded random.Random and returns a Skill. The answer is a function of the question,
so an answer is either exact or wrong. `key` names the content that the held-out split hashes; None
means the whole prompt. `thought` is what the model thinks when thinking is on.
"""

import json
from collections import namedtuple

import words

Skill = namedtuple("Skill", "ask answer thought key", defaults=(None,))

ABOUT = (
    "I am the demo model of inferd, a small language model trained on made-up examples. "
    "inferd serves models like Gemma 4 from inside nginx."
)
INFERD = (
    "inferd is an engine that serves Gemma 4 models. It runs beside nginx and talks to it over "
    "shared memory, so that an answer streams to the client token by token."
)
CAN = (
    "I can do small sums, repeat and reverse words, make lists, remember your name, turn a "
    "sentence into JSON and call tools."
)
SORRY = "I am only a small demo model and do not know about {}. " + CAN

HELLO = (
    "hello|hi|hey|hi there|hello there|good morning|good evening|good afternoon|hey there|"
    "greetings|hello again|hiya|howdy|good day|hello friend|hello model|hi you"
).split("|")


def tidy(rng, s):
    """The ways people write the same thing: case, closing mark, a please."""
    r = rng.random()
    if r < 0.12:
        s = s[0].lower() + s[1:]
    if rng.random() < 0.12 and s[-1] in ".?!":
        s = s[:-1]
    elif rng.random() < 0.08 and s[-1] == ".":
        s = s[:-1] + "!"
    return s


def polite(rng, s):
    r = rng.random()
    if r < 0.12:
        s = "Please " + s[0].lower() + s[1:]
    elif r < 0.2:
        s = "Can you " + s[0].lower() + s[1:].rstrip(".") + "?"
    elif r < 0.26:
        s = s.rstrip(".") + ", please."
    return tidy(rng, s)


def greeting(rng):
    r = rng.random()
    if r < 0.55:
        h = rng.choice(HELLO)
        part = h.split()
        day = " ".join(part[:2]).capitalize() if part[0] == "good" else "Hello"
        ask = h.capitalize() if rng.random() < 0.6 else h
        tail = rng.choice(["", "", "!", ".", "!!", " :)"])
        if rng.random() < 0.3:
            who = words.name(rng)
            return Skill(
                f"{ask}, I am {who}{tail}",
                f"{day}, {who}! How can I help you?",
                f"{who} greets me. I greet back.",
            )
        return Skill(ask + tail, f"{day}! How can I help you?", "The user greets me. I greet back.")
    if r < 0.7:
        ask = rng.choice(
            [
                "How are you?",
                "How are you doing?",
                "How is it going?",
                "Are you well?",
                "How are you today?",
                "What's up?",
            ]
        )
        if rng.random() < 0.5:
            ask = rng.choice(["Hello! ", "Hi, ", "Hey, ", "Good morning! "]) + ask
        return Skill(
            tidy(rng, ask),
            "I am fine, thank you. How can I help you?",
            "The user asks how I am. I am fine.",
        )
    if r < 0.85:
        ask = rng.choice(
            [
                "Thank you.",
                "Thanks!",
                "Thanks a lot.",
                "Thank you very much!",
                "Great, thanks.",
                "Many thanks.",
                "Thank you for your help.",
                "Nice, thank you.",
            ]
        )
        return Skill(tidy(rng, ask), "You are welcome!", "The user thanks me.")
    ask = rng.choice(
        [
            "Bye.",
            "Goodbye!",
            "See you.",
            "Good night.",
            "Bye bye!",
            "See you later.",
            "Goodbye, model.",
            "I have to go now.",
            "See you tomorrow.",
        ]
    )
    return Skill(tidy(rng, ask), "Goodbye! Have a nice day.", "The user leaves. I say goodbye.")


def about(rng):
    who = [
        "Who are you?",
        "What are you?",
        "Tell me about yourself.",
        "Which model are you?",
        "Introduce yourself.",
        "What model is this?",
        "Who am I talking to?",
        "Are you a robot?",
        "What is your name?",
        "Are you an AI?",
        "Who made you?",
    ]
    inf = [
        "What is inferd?",
        "Tell me about inferd.",
        "What does inferd do?",
        "Explain inferd.",
        "Describe inferd.",
        "What is inferd for?",
        "How does inferd work?",
        "Do you know inferd?",
    ]
    can = [
        "What can you do?",
        "Help.",
        "How can you help me?",
        "What are you good at?",
        "Help me.",
        "What are your skills?",
        "What do you know?",
        "What can I ask you?",
        "Show me what you can do.",
    ]
    ask, answer, th = rng.choice(
        [
            (who, ABOUT, "The user asks who I am."),
            (inf, INFERD, "The user asks about inferd."),
            (can, CAN, "The user asks what I can do."),
        ]
    )
    ask = tidy(rng, rng.choice(ask))
    lead = rng.choice(
        ["", "", "", "Hello! ", "Hi, ", "Please tell me: ", "So, ", "Well, ", "One question: "]
    )
    return Skill(lead + ask, answer, th)


def column_sum(a, b):
    """The sum, digit by digit from the right, as a person would write it."""
    x, y, carry, out = str(a)[::-1], str(b)[::-1], 0, []
    for i in range(max(len(x), len(y))):
        d, e = int(x[i]) if i < len(x) else 0, int(y[i]) if i < len(y) else 0
        s = d + e + carry
        out.append(f"{d}+{e}" + (f"+{carry}" if carry else "") + f"={s}")
        carry = s // 10
    return ", ".join(out) + f". So {a}+{b}={a + b}."


def arithmetic(rng):
    r = rng.random()
    op = "+" if r < 0.45 else "-" if r < 0.75 else "*" if r < 0.93 else "/"
    if op == "*":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        res, key = a * b, None
        th = f"{a} times {b} is {res}."
    elif op == "/":
        b, res = rng.randint(1, 10), rng.randint(0, 10)
        a, key = b * res, None
        th = f"{b} times {res} is {a}."
    else:
        big = rng.choice([999, 999, 9999]) if op == "+" and rng.random() < 0.25 else 99
        a, b = rng.randint(0, big), rng.randint(0, 99 if rng.random() < 0.5 else big)
        if op == "-" and rng.random() < 0.85 and b > a:
            a, b = b, a
        res = a + b if op == "+" else a - b
        key = f"{a}{op}{b}" if a > 9 and b > 9 else None
        th = column_sum(a, b) if op == "+" else f"{a} minus {b} is {res}."
    name = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[op]
    eq = f"{a} {op} {b}"
    short = rng.random() < 0.35
    if short:
        ask = rng.choice(
            [
                eq,
                eq + " =",
                eq.replace(" ", ""),
                eq.replace(" ", "") + "=",
                eq + " = ?",
                f"{a} {name} {b}",
                eq + "?",
            ]
        )
        return Skill(ask, f"{a} {op} {b} = {res}", th, key)
    form = rng.choice([eq, eq, f"{a} {name} {b}", eq.replace(" ", "")])
    ask = rng.choice(
        [
            "What is {}?",
            "How much is {}?",
            "Calculate {}.",
            "Compute {}.",
            "What's {}?",
            "Tell me {}.",
            "Work out {}.",
            "Solve {}.",
            "What does {} make?",
            "I need the result of {}.",
        ]
    ).format(form)
    return Skill(tidy(rng, ask), f"{a} {op} {b} = {res}", th, key)


def story(rng):
    who, thing = words.name(rng), rng.choice(words.THINGS)
    a, b = rng.randint(2, 50), rng.randint(1, 40)
    if rng.random() < 0.5:
        verb, res, op = rng.choice(["buys", "finds", "gets", "wins"]), a + b, "+"
        mid = f"{verb} {b} more"
    else:
        a, b = max(a, b) + 1, min(a, b)
        verb, res, op = rng.choice(["loses", "sells", "gives away", "breaks"]), a - b, "-"
        mid = f"{verb} {b}"
    join = rng.choice([" and ", ". Then " + who + " ", ", then "])
    ask = f"{who} has {a} {thing}{join}{mid}. How many {thing} does {who} have" + rng.choice(
        ["?", " now?"]
    )
    return Skill(ask, f"{who} has {res} {thing}.", f"{a} {op} {b} = {res}.")


def repeat(rng):
    n = rng.choice([1, 1, 2, 3, 4])
    kinds = rng.choices(
        [words.word, words.far_word, lambda r: r.choice(words.SMALL)], [6, 1, 2], k=n
    )
    text = " ".join(make(rng) for make in kinds)
    if rng.random() < 0.08:
        text = " ".join(rng.choice(words.SMALL + words.COMMON) for _ in range(rng.randint(5, 10)))
    if rng.random() < 0.15:
        text = text.capitalize() + rng.choice([".", "!", ""])
    key = "repeat " + text if n > 1 else None
    if rng.random() < 0.2 and n == 1:
        times = rng.randint(2, 5)
        ask = rng.choice(["Repeat {} {} times.", "Say {} {} times.", "Write {} {} times."])
        return Skill(
            polite(rng, ask.format(text, times)), " ".join([text] * times), f"{times} times {text}."
        )
    q = rng.choice(["", "", '"', "'"])
    ask = rng.choice(
        [
            "Repeat: {}",
            "Repeat after me: {}",
            "Say {}",
            "Repeat {}",
            "Echo {}",
            "Say: {}",
            "Write {}",
            "Repeat this: {}",
            "Copy this: {}",
        ]
    ).format(q + text + q)
    if rng.random() < 0.1:
        ask = "Please " + ask[0].lower() + ask[1:]
    return Skill(ask, text, "I repeat the words.", key)


def reverse(rng):
    w = words.word(rng)[:8]
    q = rng.choice(["", "", '"', "'"])
    ask = rng.choice(
        [
            "Reverse the word {}.",
            "Reverse {}.",
            "Write {} backwards.",
            "Spell {} backwards.",
            "What is {} backwards?",
            "Turn the word {} around.",
            "What is {} reversed?",
            "Reverse: {}",
        ]
    ).format(q + w + q)
    if ask.endswith("."):
        ask = polite(rng, ask)
    return Skill(
        ask,
        w[::-1],
        "The letters are " + " ".join(w) + ". Backwards: " + " ".join(w[::-1]) + ".",
        "reverse " + w,
    )


def spell(rng):
    w = words.word(rng)[:8]
    if rng.random() < 0.5:
        ask = rng.choice(["Spell {}.", "Spell the word {}.", "How do you spell {}?"]).format(w)
        return Skill(tidy(rng, ask), "-".join(w.upper()), "The word is " + w + ".", "spell " + w)
    ask = rng.choice(
        [
            "How many letters are in {}?",
            "How many letters does {} have?",
            "Count the letters in {}.",
        ]
    ).format(w)
    return Skill(
        tidy(rng, ask),
        f"The word {w} has {len(w)} letters.",
        ", ".join(f"{c} {i}" for i, c in enumerate(w, 1)) + ".",
        "count " + w,
    )


def listing(rng):
    kind = rng.choice(list(words.KINDS))
    have = words.KINDS[kind]
    n = rng.randint(2, min(8, len(have)))
    said = rng.choice([str(n), words.KINDS["numbers"][n - 1]])
    ask = rng.choice(
        [
            "List {} {}",
            "Name {} {}",
            "Give me {} {}",
            "Tell me {} {}",
            "Write down {} {}",
            "Make a list of {} {}",
            "I want a list of {} {}",
            "Show me {} {}",
        ]
    ).format(said, kind)
    items = have[:n]
    r = rng.random()
    if r < 0.6:
        answer = "\n".join(f"{i}. {w}" for i, w in enumerate(items, 1))
    elif r < 0.8:
        ask += rng.choice([" as bullets", " with bullets", " as a bullet list"])
        answer = "\n".join("- " + w for w in items)
    else:
        ask += rng.choice([" in one line", " separated by commas", " on one line"])
        answer = ", ".join(items)
    return Skill(polite(rng, ask + "."), answer, f"The user wants {n} {kind}.")


def extraction(rng):
    who, age, job, town = (
        words.name(rng),
        rng.randint(1, 99),
        rng.choice(words.JOBS),
        words.city(rng),
    )
    forms = [
        ("{n} is {a} years old", "na"),
        ("My friend {n} is {a}", "na"),
        ("{n} is a {j} and is {a} years old", "naj"),
        ("{n}, {a}, lives in {c}", "nac"),
        ("{n} lives in {c}", "nc"),
        ("{n} is a {j} from {c}", "njc"),
        ("{n} works as a {j}", "nj"),
        ("{n} is {a} years old and works as a {j} in {c}", "najc"),
        ("In {c} lives {n}, a {j}", "njc"),
        ("The {a} year old {n} lives in {c}", "nac"),
        ("I met {n}, who is {a}", "na"),
    ]
    form, has = rng.choice(forms)
    text = form.format(n=who, a=age, j=job, c=town)
    full = {"n": ("name", who), "a": ("age", age), "j": ("job", job), "c": ("city", town)}
    data = dict(full[c] for c in "najc" if c in has)
    keys = list(data)
    if rng.random() < 0.4:
        keys = keys[: rng.randint(1, len(keys))]
    if rng.random() < 0.3:
        rng.shuffle(keys)
    named = ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0]
    lead = rng.choice(
        [
            "Extract {} as JSON: ",
            "Give me {} as JSON: ",
            "Return JSON with {}: ",
            "Write {} as JSON: ",
            "JSON with {}: ",
            "Extract the {} as JSON from: ",
        ]
    )
    q = rng.choice(["", "", '"'])
    return Skill(
        lead.format(named) + q + text + "." + q,
        json.dumps({k: data[k] for k in keys}),
        "The fields are " + ", ".join(f"{k} {data[k]}" for k in keys) + ".",
    )


def compare(rng):
    a, b = rng.sample(range(0, 1000 if rng.random() < 0.3 else 100), 2)
    big = rng.random() < 0.5
    ask = rng.choice(
        [
            f"Which is {'larger' if big else 'smaller'}, {a} or {b}?",
            f"What is {'larger' if big else 'smaller'}: {a} or {b}?",
            f"Is {a} {'larger' if big else 'smaller'} than {b}?",
        ]
    )
    win = max(a, b) if big else min(a, b)
    how = "larger" if big else "smaller"
    if ask.startswith("Is"):
        return Skill(
            tidy(rng, ask), f"{'Yes' if win == a else 'No'}, {win} is {how}.", f"{win} is {how}."
        )
    return Skill(tidy(rng, ask), f"{win} is {how}.", f"I compare {a} and {b}.")


def unknown(rng):
    topic = (
        rng.choice(words.TOPICS) if rng.random() < 0.6 else words.word(rng) + " " + words.word(rng)
    )
    ask = rng.choice(
        [
            "Tell me about {}.",
            "What is {}?",
            "Explain {}.",
            "Write a story about {}.",
            "What do you know about {}?",
            "Who invented {}?",
            "Write a poem about {}.",
            "Why is {} important?",
            "Where can I learn about {}?",
            "Describe {}.",
        ]
    ).format(topic)
    return Skill(tidy(rng, ask), SORRY.format(topic), f"I know nothing about {topic}.")


def puzzled(rng):
    """Anything else: words without a task."""
    pool = words.SMALL + words.COMMON
    r = rng.random()
    if r < 0.2:
        ask = words.far_word(rng)
    elif r < 0.35:
        ask = " ".join(words.syllables(rng, 1) for _ in range(rng.randint(1, 3)))
    else:
        parts = [
            rng.choice(pool) if rng.random() < 0.8 else words.word(rng)
            for _ in range(rng.randint(2, 10))
        ]
        if rng.random() < 0.2:
            parts[rng.randrange(len(parts))] = words.far_word(rng)
        ask = " ".join(parts)
    if rng.random() < 0.6:
        ask = ask[0].upper() + ask[1:]
    return Skill(
        ask + rng.choice(["", ".", "?", "!", "?"]),
        "Sorry, I do not understand. " + CAN,
        "This is no task that I know.",
    )


def fixed(rng):
    if rng.random() < 0.4:
        ask = rng.choice(
            [
                "Tell me a joke",
                "Do you know a joke",
                "Make me laugh",
                "Say something funny",
                "Tell a joke",
                "Another joke",
                "A joke",
                "I want to hear a joke",
            ]
        )
        return Skill(
            polite(rng, ask + "."),
            "Why did the token cross the ring? To get to the other slot.",
            "The user wants a joke.",
        )
    n = rng.randint(2, 20)
    said = words.KINDS["numbers"][n - 1] if n <= 10 and rng.random() < 0.5 else str(n)
    ask = rng.choice(
        ["Count to {}.", "Count up to {}.", "Count from 1 to {}.", "Can you count to {}?"]
    ).format(said)
    return Skill(
        tidy(rng, ask), ", ".join(str(i) for i in range(1, n + 1)), f"I count from 1 to {n}."
    )


def name_tell(rng, who):
    return (
        rng.choice(
            [
                "My name is {}.",
                "I am {}.",
                "Hello, my name is {}.",
                "Hi! I'm {}.",
                "Call me {}.",
                "Please call me {}.",
                "My name is {}, nice to meet you.",
                "I am called {}.",
                "Hi, my name is {}!",
            ]
        ).format(who),
        f"Nice to meet you, {who}!",
    )


def name_ask(rng, who):
    ask = rng.choice(
        [
            "What is my name?",
            "Who am I?",
            "Do you remember my name?",
            "What's my name?",
            "Tell me my name.",
            "Do you know my name?",
            "Say my name.",
            "How am I called?",
        ]
    )
    return Skill(tidy(rng, ask), f"Your name is {who}.", f"The user said the name is {who}.")


MAKERS = {
    "greeting": (greeting, 6),
    "about": (about, 6),
    "arithmetic": (arithmetic, 22),
    "story": (story, 6),
    "repeat": (repeat, 8),
    "reverse": (reverse, 10),
    "spell": (spell, 6),
    "list": (listing, 8),
    "json": (extraction, 10),
    "compare": (compare, 4),
    "unknown": (unknown, 5),
    "puzzled": (puzzled, 4),
    "count, joke": (fixed, 3),
}
