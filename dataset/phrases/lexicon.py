"""The words that the rule grammar knows: closed classes, frequent adjectives and verbs of image captions, irregular forms.

What no list holds is a noun, unless its ending or its place says otherwise (dataset/phrases/tagging.py).
"""

from typing import NamedTuple


def listed(words: str) -> frozenset[str]:
    """Words with spaces between them."""
    return frozenset(words.split())


class VerbForm(NamedTuple):
    """What a form of a verb is."""

    lemma: str
    kind: str
    """base, third (-s), ing, or past (participles too)."""


DETERMINERS = listed(
    "a an the this that these those some any each every another other both all many several few no his her its their my your our "
    "various multiple more most much"
)
PRONOUNS = listed(
    "it he she they them him i you we us me himself herself itself themselves there who which what someone something everyone others"
)
CONJUNCTIONS = listed("and or but nor")
BREAKS = listed("while as when where because if than so although")
"""Words that begin another clause."""
AUXILIARIES = listed("is are was were be been being am has have had having do does did can could will would may might must")
HAVING = listed("has have had having")
ADVERBS = listed(
    "very not just also too only almost quite really together away up down off out back around ahead along apart forward "
    "outdoors outside inside indoors nearby sideways upside underneath there here now still already about"
)
NUMBERS = listed("one two three four five six seven eight nine ten eleven twelve dozen half")
PREPOSITIONS = listed(
    "of in on at with by near under over above below behind beside besides between among across along through into onto against from "
    "for to inside outside around past towards toward atop amongst within without during underneath beneath alongside beyond off up down "
    "like via after before"
)
LONG_PREPOSITIONS: tuple[tuple[str, ...], ...] = tuple(
    tuple(phrase.split())
    for phrase in (
        "to the left of",
        "to the right of",
        "on the left of",
        "on the right of",
        "on the side of",
        "on the back of",
        "in the middle of",
        "in the back of",
        "at the top of",
        "on top of",
        "in front of",
        "next to",
        "close to",
        "left of",
        "right of",
        "out of",
        "up to",
        "in between",
        "inside of",
        "outside of",
        "off of",
    )
)
COLLECTIVES = listed("group couple pair bunch lot lots number variety herd flock crowd row line set team assortment pile stack")
"""Nouns whose "of" phrase is what acts: in "a group of people riding" it is people who ride."""

ADJECTIVES = listed("""
    red blue green yellow orange purple pink brown black white grey gray silver golden gold beige tan maroon teal turquoise cyan magenta
    violet navy dark light bright pale colorful colourful colored multicolored blond blonde brunette clear transparent opaque
    big large small little tiny huge giant enormous tall short long wide narrow thick thin deep shallow high low full empty half massive
    old young new ancient modern antique vintage elderly adult older younger
    round oval rectangular triangular circular flat curved straight pointed sharp steep spiral
    hot cold warm cool frozen icy snowy rainy sunny cloudy foggy windy stormy overcast misty hazy
    wet dry damp muddy dusty dirty clean fresh ripe rotten raw cooked baked fried grilled roasted sliced chopped toasted stuffed
    wooden metal metallic plastic concrete woolen marble furry fluffy hairy bald shiny glossy matte smooth rough soft hard
    heavy solid grassy sandy rocky mountainous hilly rural urban suburban tropical residential industrial commercial public private
    happy sad angry cute pretty beautiful handsome lovely ugly nice good bad great best better funny silly strange weird
    odd unusual unique interesting cozy messy tidy neat cluttered crowded busy quiet calm lonely lone single double triple
    open closed shut broken torn rusty rusted worn wrinkled cracked damaged abandoned
    plain striped dotted spotted checkered checked plaid patterned floral flowered fancy elegant formal casual decorative ornate simple
    professional male female human asian african american european chinese japanese indian french italian german mexican english british
    fat skinny slim chubby muscular pregnant asleep awake alive dead wild domestic tame stray
    first second third last next final main upper lower top bottom left right front rear middle central leftmost rightmost highest lowest
    largest biggest smallest topmost same different similar identical matching opposite separate whole entire
    electric electronic digital analog automatic mechanical portable mobile stationary
    delicious tasty sweet sour spicy salty healthy vegetarian vegan creamy crispy juicy
    blurry blurred lit lighted dim illuminated shaded shady sunlit reflective
    bare barefoot shirtless nude naked dressed masked bearded topless
    laden available ready able famous popular traditional religious royal military
    indoor outdoor overhead underwater aerial distant far
    """)
ING_NOUNS = listed(
    "building clothing painting ceiling railing wedding evening morning string ring king wing thing something nothing anything everything "
    "spring parking living dining cutting swimming crossing sing bedding siding frosting icing topping dressing "
    "stuffing earring drawing lighting awning landing offering being pudding shopping boxing duckling darling sibling"
)
"""Words in -ing that are nouns, or modify one like a noun does ("living room")."""
ALWAYS_NOUNS = listed("sign signs brush brushes plant plants frost box boxes pet pets")
"""Forms of verbs that are nouns in captions."""
NOUN_FORMS = listed("""
    park train sign plate bat fly catch watch show play surf ride walk stand drink cook dress match place back cross cut face fish lay
    swing skate ski rest pose throw hit bowl brush board bus can cap clock cover fence field fire float glass grill group hand jump kick
    kite light line look mix model mouth ramp rock roll row run saddle sail seat serve shade shower sink slide slope smile snow spot stack
    stop store swim table talk taste toy trail truck turn view wave work plant pet cover shop tie top toast bite block box bridge
    wind plan set
    """)
"""Verbs that are as often nouns: read as verbs only where a noun, a pronoun or "to" stands before them and no noun comes after."""

_REGULAR = """
sit stand hold ride walk run jump play lie lay sleep eat drink fly swim surf ski skate skateboard snowboard sail drive park travel move
carry pull push lift throw catch hit kick swing bat pitch serve reach grab touch pet feed wash brush comb clean cook bake fry grill cut
slice chop pour mix stir fill cover wrap tie hang place put set lean rest perch kneel crouch bend stretch climb crawl slide roll spin turn
face look watch stare gaze view see smile laugh talk speak sing dance pose wear dress hug kiss wave point show display feature contain
include surround line pile stack load unload board cross enter leave exit pass follow lead chase race compete practice perform work use
operate type write read draw paint build make prepare open close lock shut light burn shine fall drop land take bring give get go come
wait stop start begin try attempt graze roam wander stroll march hike float drift dive splash bathe shower soak bark sniff lick chew bite
nap snuggle cuddle yawn groom attach mount fix repair connect park sell buy shop gather meet join share cut decorate top fly dock
approach head attend plan wind protect mimic do celebrate cheer enjoy prepare swallow
balance skate grind flip trick overlook border connect support lay
sprinkle
garnish stuff arrange seat situate locate position mark label sign sit wade ride herd milk shear pick plant grow bloom blow peek peer
appear seem check examine inspect study photograph film record capture wait bike cycle jog sprint tackle dribble shoot toss bounce juggle
carve frost glaze melt boil steam toast park walk flow run leap hop snow rain cast reflect hover soar glide tow haul drag crash
"""
_IRREGULAR = {
    "sit": "sat",
    "stand": "stood",
    "hold": "held",
    "ride": "rode ridden",
    "run": "ran run",
    "lie": "lay lain",
    "lay": "laid",
    "sleep": "slept",
    "eat": "ate eaten",
    "drink": "drank drunk",
    "fly": "flew flown",
    "swim": "swam swum",
    "drive": "drove driven",
    "throw": "threw thrown",
    "catch": "caught",
    "hit": "hit",
    "swing": "swung",
    "feed": "fed",
    "cut": "cut",
    "hang": "hung",
    "put": "put",
    "set": "set",
    "kneel": "knelt",
    "bend": "bent",
    "spin": "spun",
    "see": "saw seen",
    "speak": "spoke spoken",
    "sing": "sang sung",
    "wear": "wore worn",
    "leave": "left",
    "lead": "led",
    "write": "wrote written",
    "read": "read",
    "draw": "drew drawn",
    "build": "built",
    "make": "made",
    "shut": "shut",
    "light": "lit",
    "shine": "shone",
    "fall": "fell fallen",
    "take": "took taken",
    "bring": "brought",
    "give": "gave given",
    "get": "got gotten",
    "go": "went gone",
    "come": "came come",
    "begin": "began begun",
    "dive": "dove dived",
    "bite": "bit bitten",
    "sell": "sold",
    "buy": "bought",
    "meet": "met",
    "grow": "grew grown",
    "blow": "blew blown",
    "shoot": "shot",
    "show": "showed shown",
    "do": "did done",
    "cast": "cast",
}
_DOUBLED = listed(
    "sit run swim cut put set hit bat pet get spin stop drop hug nap wrap chop stir skip dip flip hop jog "
    "drag grin chat shut top shop ship begin bar mop"
)
_ING_ONLY = {"lie": "lying", "tie": "tying", "mimic": "mimicking"}

IRREGULAR_NOUNS = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "knives": "knife",
    "wives": "wife",
    "lives": "life",
    "leaves": "leaf",
    "loaves": "loaf",
    "shelves": "shelf",
    "scarves": "scarf",
    "calves": "calf",
    "wolves": "wolf",
    "halves": "half",
    "elves": "elf",
    "firemen": "fireman",
    "policemen": "policeman",
    "snowmen": "snowman",
    "movies": "movie",
    "cookies": "cookie",
    "ties": "tie",
    "pies": "pie",
    "zombies": "zombie",
    "selfies": "selfie",
    "veggies": "veggie",
    "hoodies": "hoodie",
    "brownies": "brownie",
    "smoothies": "smoothie",
    "shoes": "shoe",
    "toes": "toe",
    "horseshoes": "horseshoe",
    "canoes": "canoe",
    "buses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "axes": "axe",
    "skis": "ski",
}
UNCHANGED = listed(
    "people sheep fish deer tennis scissors pants jeans shorts trousers glasses sunglasses series bus gas lens canvas christmas news "
    "species tongs pajamas goggles leggings binoculars stairs clothes always perhaps is has was this its his us yes octopus cactus "
    "campus citrus asparagus hummus walrus hippopotamus rhinoceros mattress across"
)
"""Nouns that stay as they are, though they look like plurals."""


def verb_forms() -> dict[str, VerbForm]:
    """Every form of the known verbs."""
    forms: dict[str, VerbForm] = {}
    for verb in dict.fromkeys(_REGULAR.split()):
        stem = verb + verb[-1] if verb in _DOUBLED else verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb
        forms.setdefault(verb, VerbForm(verb, "base"))
        forms.setdefault(_third(verb), VerbForm(verb, "third"))
        forms[_ING_ONLY.get(verb, f"{stem}ing")] = VerbForm(verb, "ing")
        past = _IRREGULAR.get(verb)
        regular = f"{verb[:-1]}ied" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{stem}ed"
        for form in past.split() if past else [regular]:
            forms.setdefault(form, VerbForm(verb, "past"))
    return forms


def _third(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "x", "z", "ch", "sh", "go", "do")) else f"{verb}s"


VERBS = verb_forms()
