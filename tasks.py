"""What `invoke` loads: the collection of the package beside this file."""

import sys

sys.modules.pop(__name__, None)  # Invoke registers this file as `tasks`, which is the package's name

from tasks import namespace  # noqa: E402

__all__ = ["namespace"]
