"""What `invoke` loads: the collection of the package beside this file."""

import sys

sys.modules.pop(__name__, None)  # Invoke registers this file as `tasks`, which is the package's name

from tasks import namespace  # noqa: E402
from tasks.cli import explain_mistakes  # noqa: E402

explain_mistakes()
__all__ = ["namespace"]
