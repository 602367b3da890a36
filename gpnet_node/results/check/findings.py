"""Collects what differs, sentence by sentence, so that one error can tell all of it."""

from dataclasses import dataclass, field

from gpnet_node.errors import SelfCheckError

# More sentences than this help nobody.
MOST_SENTENCES = 12


@dataclass(kw_only=True)
class Findings:
    """Sentences on what differs, in the order found."""

    sentences: list[str] = field(default_factory=list)

    def expect(self, holds: bool, sentence: str) -> None:
        """Keep the sentence unless the condition holds."""
        if not holds and sentence not in self.sentences:
            self.sentences.append(sentence)

    def raise_any(self) -> None:
        """Raise SelfCheckError with what was found, or return if nothing was."""
        if not self.sentences:
            return
        hidden = len(self.sentences) - MOST_SENTENCES
        more = f"; and {hidden} more" if hidden > 0 else ""
        raise SelfCheckError("; ".join(self.sentences[:MOST_SENTENCES]) + more)
