"""The words of simulated models, and how they are cut into pieces."""

import random
import re
from collections.abc import Sequence

SHORTEST, LONGEST = 12, 40  # words of an answer whose length nobody fixed
READ_CHARACTERS = 500  # of the last user message, to find words worth repeating

# Each holds a two-byte, a three-byte and a four-byte character of UTF-8, so that every answer can be cut inside one.
OPENERS = (
    "From Köln to 京都 🚀 people ask about {topic}.",
    "Zürich and 東京 agree 🙂 about {topic}.",
    "The Müller and 王 handbook 📘 explains {topic}.",
    "Gödel told 陳 over cake 🍰 about {topic}.",
    "Every café in 大阪 🎉 is discussing {topic}.",
    "My naïve friend 李 smiles 😀 at {topic}.",
)
SENTENCES = (
    "It helps to look at {topic} step by step.",
    "Most people first notice how simple it is.",
    "The details of {topic} matter more than they seem.",
    "A careful reader would compare several sources first.",
    "In short, the common opinion holds up well.",
    "There are good reasons to be patient here.",
    "Some questions about {topic} stay open, and that is fine.",
    "The usual advice is to start small and measure.",
    "Nothing about this is urgent, but it is useful.",
    "With a little practice {topic} becomes quite natural.",
)


def split_pieces(text: str) -> tuple[str, ...]:
    """Cut a text into pieces of about one word, each with the white space before it."""
    return tuple(re.findall(r"\s*\S+|\s+$", text))


def say(topic: str, chance: random.Random) -> str:
    """Put sentences together until the answer is long enough."""
    wanted = chance.randint(SHORTEST, LONGEST)
    said = [chance.choice(OPENERS).format(topic=topic)]
    count = len(said[0].split())
    for sentence in chance.sample(SENTENCES, len(SENTENCES)):
        if count >= wanted:
            break
        length = len(sentence.split())
        if count + length <= LONGEST:
            said.append(sentence.format(topic=topic))
            count += length
    return " ".join(said)


def say_exactly(tokens: int, topic: str, chance: random.Random) -> tuple[str, ...]:
    """Say exactly so many pieces, starting with the letters outside ASCII."""
    pieces = list(split_pieces(chance.choice(OPENERS).format(topic=topic)))
    while len(pieces) < tokens:
        pieces.extend(split_pieces(" " + chance.choice(SENTENCES).format(topic=topic)))
    return tuple(pieces[:tokens])


def find_words(text: str) -> Sequence[str]:
    """Find the words worth repeating, in the text's own order; never none."""
    text = text[:READ_CHARACTERS]
    return re.findall(r"[^\W\d_]{4,40}", text) or re.findall(r"\w{1,40}", text) or ["that"]
