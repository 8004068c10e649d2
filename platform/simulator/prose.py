"""Text of the simulated answers: sentences from a long prompt, or about a short one; determined by the seed."""

import re
from collections.abc import Iterator

#: A prompt with at least this many sentences is treated as a text to summarize.
LONG_PROMPT_SENTENCES = 8
#: Shorter than this it is a heading or a label, longer it is a table or a list.
SENTENCE_CHARACTERS = range(30, 321)
#: Unsuitable sentences that are skipped before a part of the text is skipped.
MAX_SKIPPED_SENTENCES = 20
QUOTED_CHARACTERS = 60

SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9À-Þ])")
WORDS = re.compile(r"\s*\S+(?:\s+$)?")

SUMMARY_OPENINGS = (
    "In short:",
    "Here is the text in brief.",
    "The main points, in the author's own words:",
    "A short version:",
)

OPENINGS = (
    "You asked about “{}”.",
    "Here is a first answer to “{}”.",
    "Let us look at “{}” step by step.",
    "A short answer to “{}” follows.",
)

SENTENCES = (
    "Start with the smallest step that would show whether the idea works.",
    "Most of the difficulty lies in deciding what to leave out.",
    "Write down what you expect before you look at the result.",
    "A plan that fits on one page is easier to keep than a long one.",
    "The first draft only has to exist; the second one has to be good.",
    "Readers remember examples long after they have forgotten the rule.",
    "It helps to name the problem in one plain sentence.",
    "Small and steady changes are easier to undo than large ones.",
    "Ask someone who was not in the room to read it aloud.",
    "When two answers seem equally good, choose the one that is simpler to explain.",
    "A good title promises one thing and keeps the promise.",
    "Measure it once, change one thing, and then measure it again.",
    "The cheapest moment to find a mistake is before anyone depends on it.",
    "Opening hours, prices and directions answer most visitors’ questions.",
    "A short list with clear verbs is better than a long paragraph.",
    "Keep the important sentence near the beginning.",
    "If a word can be left out without loss, leave it out.",
    "Good habits grow from a fixed time and a fixed place.",
    "There is seldom one right way, but there are many that are clearly wrong.",
    "The weather, the season and the day of the week all play a part.",
    "Fresh bread, good coffee and a quiet table make a café worth a détour.",
    "Thank people early and by name.",
    "Numbers persuade best when they are few and round.",
    "Whoever has to maintain it should be asked before it is built.",
    "Tools change every year; the questions stay much the same.",
    "It is worth sleeping on any decision that cannot be taken back.",
    "Describe what the picture shows to someone who cannot see it.",
    "Three honest reviews are worth more than thirty vague ones.",
    "A careful reader will notice what is missing.",
    "End with the one thing you would like the reader to do next.",
    "The answer depends on how much time and money you can spare.",
    "Try it on a quiet day first, and keep the old way ready.",
)

#: Single words for names, titles and labels inside JSON.
NAMES = (
    "river", "lantern", "harbor", "maple", "summit", "garden", "copper", "meadow",
    "orchard", "window", "compass", "letter", "bridge", "velvet", "market", "island",
)  # fmt: skip


def answer_text(seed: int, topic: str) -> str:
    """Return a few sentences about the topic; the seed decides how many and which."""
    if sum(map(topic.count, (". ", "? ", "! ", ".\n"))) >= LONG_PROMPT_SENTENCES:
        return _summary(seed, topic) or _small_talk(seed, topic)
    return _small_talk(seed, topic)


def longer_text(seed: int, topic: str, at_least_bytes: int) -> str:
    """Return the answer, extended to at least this size."""
    parts = [answer_text(seed, topic)]
    size = len(parts[0].encode())
    for number in random_numbers(seed + 1):
        if size >= at_least_bytes:
            break
        parts.append(SENTENCES[number % len(SENTENCES)])
        size += len(parts[-1].encode()) + 1
    return " ".join(parts)


def split_words(text: str) -> list[str]:
    """The text in pieces of one word each, as a stream shows it; joined they are the text again."""
    return WORDS.findall(text) or [text]


def equal_parts(text: str, count: int) -> list[str]:
    """The text in exactly `count` pieces, empty ones if it is too short."""
    size = len(text)
    bounds = [size * index // count for index in range(count + 1)]
    return [text[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def random_numbers(seed: int) -> Iterator[int]:
    """Repeatable numbers. `random.Random` would take longer than the rest of an answer."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        yield state >> 33


def _summary(seed: int, text: str) -> str:
    """Some sentences of the text, in their order; empty if it has none that can stand alone."""
    rng = random_numbers(seed)
    opening = SUMMARY_OPENINGS[next(rng) % len(SUMMARY_OPENINGS)]
    wanted = 3 + next(rng) % 4
    stretch = len(text) // wanted
    picked: list[str] = []
    end = 0
    for index in range(wanted):
        # Searched from one position in each part, so that a long text costs no more than a short one. The search
        # starts after a full stop, which also passes over the instruction at the beginning of most prompts.
        sentence, end = _sentence_after(text, max(end, index * stretch + next(rng) % (stretch // 2 + 1)))
        picked += [sentence] if sentence else []
    return " ".join([opening, *picked]) if picked else ""


def _sentence_after(text: str, position: int) -> tuple[str, int]:
    """The next sentence that can stand alone, and where the one after it begins; empty if there is none near."""
    begin = SENTENCE_END.search(text, max(0, position - 2))
    start = begin.end() if begin else len(text)
    for _ in range(MAX_SKIPPED_SENTENCES):
        found = SENTENCE_END.search(text, start)
        end = found.end() if found else len(text)
        sentence = " ".join(text[start:end].split())
        if len(sentence) in SENTENCE_CHARACTERS and sentence[-1] in ".!?\"'”’)":
            return sentence, end
        start = end
    return "", start


def _small_talk(seed: int, topic: str) -> str:
    rng = random_numbers(seed)
    opening = OPENINGS[next(rng) % len(OPENINGS)].format(_quoted(topic))
    wanted = 2 + next(rng) % 5
    start = next(rng)
    # With an odd stride, each of the 32 sentences occurs once before any is repeated.
    stride = 2 * (next(rng) % 16) + 1
    picked = [SENTENCES[(start + stride * index) % len(SENTENCES)] for index in range(wanted)]
    return " ".join([opening, *picked])


def _quoted(topic: str) -> str:
    line = " ".join(topic[: 4 * QUOTED_CHARACTERS].split())
    if len(line) <= QUOTED_CHARACTERS:
        return line.rstrip(".") or "nothing in particular"
    return line[:QUOTED_CHARACTERS].rsplit(" ", 1)[0] + " …"
