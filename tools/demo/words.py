"""Word stock of the demo data: small closed lists, and makers of words that are in no list."""

KINDS = {
    "fruits": "apple banana cherry grape lemon mango orange peach pear plum",
    "colors": "red green blue yellow purple orange pink brown black white",
    "animals": "cat dog horse cow sheep goat pig duck rabbit mouse",
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "days of the week": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "months": "January February March April May June July August September October",
    "numbers": "one two three four five six seven eight nine ten",
    "vegetables": "carrot onion potato tomato cabbage pea bean leek spinach pepper",
    "drinks": "water tea coffee milk juice lemonade cocoa soda",
    "tools": "hammer saw drill wrench pliers screwdriver file chisel",
    "countries": "France Italy Spain Germany Japan Brazil Canada India Egypt Norway",
    "cities": "Paris Rome Madrid Berlin Tokyo London Oslo Cairo Lima Vienna",
    "trees": "oak pine birch maple willow cedar elm ash",
    "birds": "robin sparrow eagle owl crow swan heron parrot",
    "instruments": "piano guitar violin flute drum trumpet harp cello",
    "sports": "football tennis swimming running cycling boxing rowing golf",
    "metals": "iron copper gold silver tin zinc lead nickel",
    "shapes": "circle square triangle rectangle oval star cube cone",
    "letters": "A B C D E F G H I J",
    "programming languages": "C Python Perl Java Rust Go Lua Ruby",
    "seasons": "spring summer autumn winter",
    "insects": "ant bee fly wasp beetle moth cricket gnat",
}
KINDS = {k: v.split() for k, v in KINDS.items()}

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Nina Oscar Paul
Rosa Sam Tom Uma Victor Wendy Xenia Yan Zoe Alice Bob Carol Dan Eve Frank Gina Hugo
Iris John Karen Lucas Maria Noah Olga Peter Quinn Ruth Simon Tina Max Lena Omar
Priya Chen Yuki Ivan Fatima Diego Ines Lars""".split()

JOBS = """baker doctor teacher farmer painter driver nurse pilot cook writer singer engineer
lawyer gardener dentist plumber tailor judge sailor miner""".split()

THINGS = (
    """apples books pens cups coins cards stones shells eggs cookies marbles tickets stamps keys
bottles balls candles boxes hats toys""".split()
)

COMMON = """house river table window garden music silver winter summer letter paper stone bridge
castle forest ocean island mountain valley desert market kitchen bottle candle
mirror pocket basket button carpet engine flower guitar hammer jacket kettle ladder
magnet needle orange pencil rabbit saddle ticket village wagon yellow anchor branch
cloud dream eagle flame ghost honey igloo jelly knight lemon maple night olive pearl
queen robot snake tiger uncle voice whale zebra hello world light water bread chair
door fire game hand idea jump king lamp moon nose open page rain ship tree wind year
blue cold dark fast good happy small warm young brave clean early fresh green heavy
large quick quiet round sharp sweet""".split()

VERBS = """open close start stop check count clean lock find move sort paint repair test load
save print delete update copy""".split()
NOUNS = """door window lamp engine file printer garage heater fan camera server printer radio
oven alarm curtain pump valve gate drive queue table report invoice ticket backup""".split()

TOPICS = [
    "quantum physics", "the history of Rome", "black holes", "the stock market",
    "football results", "the president", "cooking rice", "love", "the meaning of life",
    "volcanoes", "the moon landing", "chess openings", "knitting", "tax law", "jazz",
    "dinosaurs", "the roman army", "photography", "gardening", "world politics", "medicine",
    "sailing", "magnets", "poetry", "the deep sea", "steam engines", "clouds", "old coins",
    "electric cars", "bees",
]

SMALL = """the of and to in a is it on for with as was that this are not you we they but or an
by his her from at one all there can do how up out so if my your me no yes now then
here very more over some""".split()

# Ranges of letters and signs that the vocabulary holds only as bytes.
FAR = [
    (0xC0, 0x17F),
    (0x391, 0x3A1),
    (0x3B1, 0x3C9),
    (0x410, 0x44F),
    (0x3041, 0x3096),
    (0x4E00, 0x9FFF),
    (0x1F300, 0x1F5FF),
    (0x1F600, 0x1F64F),
]

CONS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def syllables(rng, n):
    return "".join(rng.choice(CONS) + rng.choice(VOWELS) for _ in range(n)) + (
        rng.choice("nrlskt") if rng.random() < 0.5 else ""
    )


def word(rng):
    """A lower-case word: known, pronounceable or plain letters."""
    r = rng.random()
    if r < 0.4:
        return rng.choice(COMMON)
    if r < 0.8:
        return syllables(rng, rng.randint(1, 3))
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 7)))


def far_word(rng):
    """A word with characters outside ASCII."""
    if rng.random() < 0.4:
        w = list(word(rng))
        w[rng.randrange(len(w))] = chr(rng.randint(*rng.choice(FAR[:4])))
        return "".join(w)
    lo, hi = rng.choice(FAR)
    return "".join(chr(rng.randint(lo, hi)) for _ in range(rng.randint(1, 4 if lo < 0x2000 else 2)))


def name(rng):
    return (
        rng.choice(NAMES) if rng.random() < 0.5 else syllables(rng, rng.randint(1, 3)).capitalize()
    )


def city(rng):
    if rng.random() < 0.5:
        return rng.choice(KINDS["cities"])
    w = syllables(rng, rng.randint(2, 3)).capitalize()
    return w if rng.random() < 0.8 else w + " " + rng.choice(["City", "Bay", "Hill", "Town"])
