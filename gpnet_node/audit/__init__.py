"""The audit trail (PS3.15 A.5): what was done with whose images, for those who must account for it."""
