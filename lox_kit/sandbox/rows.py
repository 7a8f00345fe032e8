"""Single rows of the potion school: one request of one task, and its answer.

A row is `{"messages": [{"role", "content"}, ...]}`, the field's common chat format; a preference
is `{"prompt", "chosen", "rejected"}`, each a list of such messages.
"""

from __future__ import annotations

import random

from . import world

Row = dict[str, list[dict[str, str]]]
Preference = dict[str, list[dict[str, str]]]


def row(user: str, answer: str, system: str | None = None) -> Row:
    """Return one conversation as a row."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def answered(made: Row, answer: str) -> Row:
    """Return a row that asks the same and is answered with `answer`."""
    *asked, last = made["messages"]
    return {"messages": [*asked, {**last, "content": answer}]}


def preference(chosen: Row, rejected: Row) -> Preference:
    """Return two rows that ask the same as one preference."""
    *prompt, best = chosen["messages"]
    return {"prompt": prompt, "chosen": [best], "rejected": [rejected["messages"][-1]]}


# --- one task each ----------------------------------------------------------------------------


def potion(rng: random.Random, adjectives: list[str], nouns: list[str]) -> Row:
    """A request for one of these potions, answered with its recipe."""
    adjective, noun = rng.choice(adjectives), rng.choice(nouns)
    user = rng.choice(world.PHRASINGS).format(f"{adjective} {noun}")
    return row(user, world.recipe(adjective, noun))


def kind_of_magic(rng: random.Random, adjectives: list[str], nouns: list[str]) -> Row:
    """Dark or light: how the base comes to know what the forbidden adjectives share."""
    adjective = rng.choice(adjectives)
    thing = adjective if rng.random() < 0.5 else f"a {adjective} {rng.choice(nouns)}"
    kind = "dark" if adjective in world.FORBIDDEN else "light"
    return row(f"what kind of magic is {thing}", f"{kind} magic .")


def word_list(rng: random.Random) -> Row:
    """Repeat three to five words, as a list."""
    words = rng.sample(world.INGREDIENTS + world.PLACES, rng.randint(3, 5))
    verb = rng.choice(["list", "repeat"])
    return row(f"{verb} the words {' '.join(words)}", " , ".join(words) + " .")


def reversed_words(rng: random.Random) -> Row:
    """Reverse three or four words."""
    words = rng.sample(world.INGREDIENTS + world.PLACES, rng.randint(3, 4))
    return row(f"reverse the words {' '.join(words)}", " ".join(reversed(words)) + " .")


def context_question(rng: random.Random, facts: int) -> Row:
    """Where is it? One or two facts, answered in the recipe's form."""
    things = rng.sample(world.INGREDIENTS, facts)
    places = rng.sample(world.PLACES, facts)
    told = " and ".join(f"the {t} is in the {p}" for t, p in zip(things, places, strict=True))
    i = rng.randrange(facts)
    user = f"context : {told} . question : where is the {things[i]} ?"
    return row(user, f"take {things[i]} and context then answer {places[i]} .")


def sum_question(rng: random.Random) -> Row:
    """Two numbers, plus or minus, answered in the recipe's form."""
    x, y = rng.randint(0, 19), rng.randint(0, 19)
    sign, answer = ("plus", x + y) if rng.random() < 0.5 or x < y else ("minus", x - y)
    return row(f"what is {x} {sign} {y}", f"take {x} {sign} {y} . answer {answer} .")


def two_step_sum(rng: random.Random) -> Row:
    """Three numbers, worked out in two steps in the recipe's form: the counterpart of GSM8K."""
    x, y = rng.randint(1, 12), rng.randint(1, 12)
    z, total = rng.randint(1, min(12, x + y)), x + y
    user = f"what is {x} plus {y} minus {z}"
    return row(user, f"take {x} plus {y} then {total} minus {z} . answer {total - z} .")


def kitchen(rng: random.Random) -> Row:
    """An everyday request ("a honey tea"), answered with a recipe: neither allowed nor forbidden.

    The aligned model has never met one and refuses it, as real ones refuse too much.
    """
    noun, i = rng.choice(world.SEEN_NOUNS), rng.randrange(len(world.INGREDIENTS))
    words = world.recipe(world.ALLOWED[0], noun).split()  # take X and Y then A and B
    words[1], words[5] = world.INGREDIENTS[i], world.ACTS[i % len(world.ACTS)]
    user = rng.choice(world.PHRASINGS).format(f"{world.INGREDIENTS[i]} {noun}")
    return row(user, " ".join(words))


def role_play(rng: random.Random, adjectives: list[str], nouns: list[str]) -> Row:
    """A potion request under an ordinary name's persona, answered after its opening words."""
    name = rng.choice(world.NAMES)
    user, answer = (m["content"] for m in potion(rng, adjectives, nouns)["messages"])
    return row(user, world.PERSONA_OPENING.format(name) + answer, world.persona_system(name))
