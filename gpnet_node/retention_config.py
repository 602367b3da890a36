"""The ``[retention]`` section of ``node.toml``: how long what is done with is kept."""

from datetime import datetime, timedelta
from typing import Self

from pydantic import model_validator

from gpnet_node.section import Positive, Section, Texts


class RetentionConfig(Section):
    """Without ``keep_days`` nothing is ever removed."""

    keep_days: Positive | None = None  # after a series was last received or worked on
    found_at: Texts = ()  # names of peers, one of which must hold what this node has promised to keep

    @model_validator(mode="after")
    def _found_at_needs_days(self) -> Self:
        if self.found_at and self.keep_days is None:
            raise ValueError("found_at needs keep_days: without it nothing is removed")
        return self

    def before(self, now: datetime) -> datetime | None:
        """The moment before which everything is old; None: nothing ever is."""
        return None if self.keep_days is None else now - timedelta(days=self.keep_days)
