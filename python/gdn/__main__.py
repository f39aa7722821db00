"""``python -m gdn``: what is here, and what is missing."""

from ._loading import status

print(status())
