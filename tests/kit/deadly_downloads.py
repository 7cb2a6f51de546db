"""curate with a resizer that ends its process on images of 31 by 31 pixels: python -m tests.kit.deadly_downloads WORDS"""

import io
import os
import signal  # noqa: F401  (for DEATH)

from PIL import Image

from curate.download import resize as resizes
from curate.download.resize import make_resizer


def make_deadly(source):
    resize = make_resizer(source)

    def resize_or_end(data):
        if Image.open(io.BytesIO(data)).size == (31, 31):
            exec(os.environ.get("DEATH", "os.kill(os.getpid(), signal.SIGKILL)"))
        return resize(data)

    return resize_or_end


if __name__ == "__main__":
    from curate.__main__ import start
    from tests.kit.deadly_downloads import make_deadly as by_name  # that another process finds it by

    resizes.make_resizer = by_name
    start()
