"""The account: every call and its end, what explains it, and what nothing explains."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.answers import cache_of, judge_sharing, judge_text
from tests.chaos.ends import explain
from tests.chaos.lines import RENEWAL, Lines, by_id, judge_executions, judge_line, judge_strangers, sent_again
from tests.chaos.nouns import Complaint, Story
from tests.chaos.rest import faults_told

MOST_SHOWN = 15  # complaints about one thing


@dataclass
class Account:
    """Rows are counts of ends by what explains them; good when there is no complaint."""

    story: Story
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    complaints: list[Complaint] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.complaints


def judge(story: Story) -> Account:
    """Judge all that is known of the calls."""
    account, lines = Account(story), by_id(story)
    for call in story.calls:
        end = explain(call, story)
        if isinstance(end, Complaint):
            account.rows["UNEXPLAINED", ""] += 1
            account.complaints.append(end)
        else:
            account.rows[end] += 1
            account.complaints += judge_line(call, end[0], lines, story)
        account.complaints += judge_text(call, cache_of(call, lines))
    account.complaints += judge_sharing(story, lines)
    account.complaints += judge_strangers(story, lines)
    account.complaints += judge_executions(story, lines)
    for life in story.lives:
        account.complaints += faults_told(life)
    return account


def told(account: Account) -> Iterator[str]:
    """For people."""
    story = account.story
    yield ""
    yield from _table("ends of calls", [(row, why, count) for (row, why), count in sorted(account.rows.items())])
    yield f"  {sum(account.rows.values()):6}  calls sent"
    yield ""
    yield from _counts(story, by_id(story))
    yield ""
    if account.good:
        yield "unexplained: 0"
        return
    yield f"UNEXPLAINED: {len(account.complaints)}"
    for about, count in Counter(each.about for each in account.complaints).items():
        for each in [each for each in account.complaints if each.about == about][:MOST_SHOWN]:
            yield f"  [{about}] {each.subject}: {each.text}"
        if count > MOST_SHOWN:
            yield f"  [{about}] and {count - MOST_SHOWN} more"


def _table(title: str, rows: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    yield title
    for name, why, count in rows:
        yield f"  {count:6}  {name}" + (f": {why}" if why else "")


def _counts(story: Story, lines: Lines) -> Iterator[str]:
    """What has been looked at."""
    whole = [call for call in story.calls if call.how == "whole"]
    kept = Counter(cache_of(call, lines) or "none" for call in whole)
    yield f"answers read to their end   {len(whole)}, by the cache: {_listed(kept)}"
    yield f"calls by tenant             {_listed(Counter(call.ask.tenant for call in story.calls))}"
    how = Counter(each.how for each in story.executions)
    yield f"answers begun by the echoes {len(story.executions)}: {_listed(how)}"
    yield f"requests sent again         {_again(story, lines)}, since a kept-alive connection broke before any answer"
    written = Counter(line["outcome"] for life in story.lives for line in life.lines)
    yield f"access lines                {sum(written.values())}: {_listed(written)}"
    lives = Counter(f"{life.sidecar} {life.how or 'lived on'}" for life in story.lives)
    yield f"lives of sidecars           {_listed(lives)}"


def _again(story: Story, lines: Lines) -> int:
    executions = defaultdict(list)
    for execution in story.executions:
        executions[execution.nonce].append(execution)
    return sum(
        sent_again(made, sum(line["attempts"] for name in (nonce, nonce + RENEWAL) for _, line in lines.get(name, ())))
        for nonce, made in executions.items()
        if nonce in lines
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
